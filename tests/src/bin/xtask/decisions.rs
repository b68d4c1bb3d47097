//! The list of reasons: what no check notices, and why that is right.
//!
//! A paragraph for each: on its first line the name as the table has it, then the reason.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Reasons by name, and whether each was asked for.
#[derive(Debug)]
pub(crate) struct Decisions(BTreeMap<String, (String, bool)>);

impl Decisions {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut reasons = BTreeMap::new();
        let paragraphs = text.split("\n\n").map(str::trim);
        for paragraph in paragraphs.filter(|text| !text.is_empty() && !text.starts_with('#')) {
            let Some((name, reason)) = paragraph.split_once('\n') else {
                bail!("a reason is missing for: {paragraph}");
            };
            let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
            if reasons.insert(name.to_owned(), (reason, false)).is_some() {
                bail!("two reasons for: {name}");
            }
        }
        Ok(Self(reasons))
    }

    /// The reason for what is called so.
    pub(crate) fn of(&mut self, name: &str) -> Option<&str> {
        let (reason, used) = self.0.get_mut(name)?;
        *used = true;
        Some(reason)
    }

    /// The names that nobody asked for.
    pub(crate) fn unused(&self) -> impl Iterator<Item = &str> {
        let all = self.0.iter();
        all.filter(|(_, (_, used))| !used)
            .map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Decisions;

    #[test]
    fn a_reason_is_found_once_and_a_stale_one_is_told() {
        let text = "# Head\n\nf.rs A::b c.load Acquire -> Relaxed\nBecause\nof that.\n\nold\nwhy\n";
        let mut decisions = Decisions::parse(text).unwrap();
        let why = decisions.of("f.rs A::b c.load Acquire -> Relaxed");
        assert_eq!(why, Some("Because of that."));
        assert_eq!(decisions.of("another"), None);
        assert_eq!(decisions.unused().collect::<Vec<_>>(), ["old"]);
        assert!(Decisions::parse("no reason").is_err());
    }
}
