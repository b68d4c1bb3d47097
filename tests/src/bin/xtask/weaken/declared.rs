//! That each atomic of the core that is declared says which ordering its accesses have. (What they pair with, the table says.)

use std::path::Path;

use anyhow::Result;

use super::sources_in;

/// What a comment has to name one of. "Orderings" stands in one that leads to the head of its file.
const SAYS: [&str; 7] = [
    "`Relaxed`",
    "`Acquire`",
    "`Release`",
    "`AcqRel`",
    "`SeqCst`",
    "rderings",
    "see the head",
];

/// The atomics that are declared below a folder and say nothing, by file and line.
pub(super) fn silent(sources: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (file, text) in sources_in(sources)? {
        found.extend(silent_in(&text).map(|line| format!("{file}:{line}")));
    }
    Ok(found)
}

/// The lines of a text that declare an atomic of which nothing is said: in the comment above it, the one above the fields
/// that are directly before it, or that of its type.
fn silent_in(text: &str) -> impl Iterator<Item = usize> {
    let (mut comment, mut fields, mut of_type) = (String::new(), String::new(), String::new());
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(more) = line.strip_prefix("//") {
            comment.push_str(more);
            continue;
        }
        if line.starts_with("#[") {
            continue;
        }
        let comment = std::mem::take(&mut comment);
        let item = ["pub ", "pub(crate) ", "pub(super) "]
            .iter()
            .find_map(|visible| line.strip_prefix(visible))
            .unwrap_or(line);
        if ["struct ", "type ", "static "]
            .iter()
            .any(|start| item.starts_with(start))
        {
            of_type.clone_from(&comment);
            fields.clear();
        }
        if !comment.is_empty() {
            fields = comment;
        }
        let says = |comment: &str| SAYS.iter().any(|word| comment.contains(word));
        if declares(item) && !says(&fields) && !says(&of_type) {
            found.push(number + 1);
        }
        if line.is_empty() {
            fields.clear();
        }
    }
    found.into_iter()
}

/// Whether a line declares an atomic: a field, a static, a name for its type, a type of one field.
fn declares(item: &str) -> bool {
    let is_named = item.split_once(": ").is_some_and(|(name, of)| {
        let is_static = name.starts_with("static ");
        let name = name.strip_prefix("static ").unwrap_or(name);
        // A field that is given its value is not declared.
        name.chars().all(|c| c.is_alphanumeric() || c == '_')
            && (of.starts_with("Atomic") || of.starts_with("[Atomic"))
            && (is_static || (of.ends_with(',') && !of.contains("::new(")))
    });
    let is_type = (item.starts_with("struct ") && item.contains("(Atomic"))
        || (item.starts_with("type ") && item.contains("= Atomic"));
    is_named || is_type
}

#[cfg(test)]
mod tests {
    use super::{silent, silent_in};
    use crate::command::root;

    #[test]
    fn every_atomic_of_the_core_says_its_ordering() {
        assert_eq!(
            silent(&root().join("core/src")).unwrap(),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_silent_atomic_is_found() {
        let text = "/// Two.\nstruct A {\n    /// Says nothing.\n    a: AtomicU8,\n    b: [AtomicPtr<u8>; 2],\n    \
                    /// `Relaxed`.\n    c: AtomicU8,\n    d: AtomicU8,\n}\nstruct B(AtomicU8);\n\
                    /// `Relaxed`.\nstruct C {\n    /// One.\n    e: AtomicU8,\n}\n\
                    static S: AtomicU8 = AtomicU8::new(0);\nlet f: &AtomicU8 = a;\n";
        assert_eq!(silent_in(text).collect::<Vec<_>>(), [4, 5, 10, 16]);
    }
}
