//! What people call an epoch.

use core::fmt;

/// Up to 31 bytes of text, cut at a character's boundary.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Label {
    len: u8,
    bytes: [u8; 31],
}

impl Label {
    /// The beginning of `text`, as much as fits.
    #[must_use]
    pub const fn new(text: &str) -> Self {
        let mut len = if text.len() > 31 { 31 } else { text.len() };
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        let mut bytes = [0; 31];
        let mut at = 0;
        while at < len {
            bytes[at] = text.as_bytes()[at];
            at += 1;
        }
        Self {
            len: len as u8,
            bytes,
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.len)).unwrap_or(&[]);
        // Cut at a boundary when it was made, so it is text.
        core::str::from_utf8(bytes).unwrap_or("")
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Catches a cut inside a character, a lost byte and a panic at any length.
    #[test]
    fn labels_are_cut_at_characters() {
        assert_eq!(Label::new("").as_str(), "");
        assert_eq!(Label::new("requests").as_str(), "requests");
        let long = "äöü€🦀".repeat(10);
        for skip in 0..20 {
            let Some(text) = long.get(skip..) else {
                continue;
            };
            let label = Label::new(text);
            assert!(text.starts_with(label.as_str()));
            assert!(label.as_str().len() > 27 && label.as_str().len() <= 31);
        }
    }
}
