//! Finds the accesses of a source text that have an ordering, and what each may be weakened to.
//!
//! It reads text and not syntax: the sources are formatted, so a function or an implementation begins on a line of its
//! own, and a comment ends with its line.

use std::fmt;

/// What an access does; what orderings are weaker depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Load,
    Store,
    Change,
}

/// One ordering of one access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// Relative to the sources.
    pub(crate) file: String,
    /// `Type::function`.
    pub(crate) function: String,
    /// What is accessed, and how: `self.free.swap`.
    pub(crate) access: String,
    /// The atomic's name.
    pub(crate) atomic: String,
    pub(crate) ordering: &'static str,
    /// What the comment above it says that it pairs with.
    pub(crate) pairs: Option<String>,
    kind: Kind,
    /// Where the ordering stands in the file.
    pub(crate) at: usize,
}

const ORDERINGS: [&str; 4] = ["Acquire", "Release", "AcqRel", "SeqCst"];

impl Site {
    /// The orderings that it may be weakened to, the strongest first: the weakest is noticed if they are.
    pub(crate) fn weaker(&self) -> &'static [&'static str] {
        match (self.ordering, self.kind) {
            ("AcqRel", _) => &["Acquire", "Release", "Relaxed"],
            ("SeqCst", Kind::Load) => &["Acquire", "Relaxed"],
            ("SeqCst", Kind::Store) => &["Release", "Relaxed"],
            ("SeqCst", Kind::Change) => &["AcqRel", "Acquire", "Release", "Relaxed"],
            _ => &["Relaxed"],
        }
    }

    fn acquires(&self) -> bool {
        self.ordering != "Release" && self.kind != Kind::Store
    }

    fn releases(&self) -> bool {
        self.ordering != "Acquire" && self.kind != Kind::Load
    }

    fn folder(&self) -> &str {
        self.file
            .rsplit_once('/')
            .map_or(self.file.as_str(), |(folder, _)| folder)
    }

    /// Whether one of the two can see what the other did, with all before it.
    fn may_meet(&self, other: &Self) -> bool {
        self.atomic == other.atomic
            && self.folder() == other.folder()
            && ((self.acquires() && other.releases()) || (self.releases() && other.acquires()))
    }

    /// What it pairs with: what its comment says, or the functions that access the same atomic the other way.
    pub(crate) fn partners(&self, all: &[Self]) -> String {
        if let Some(pairs) = &self.pairs {
            return pairs.clone();
        }
        let mut names: Vec<_> = all
            .iter()
            .filter(|other| self.may_meet(other))
            .map(|other| format!("`{}`", other.function))
            .collect();
        names.sort();
        names.dedup();
        names.join(", ")
    }
}

impl fmt::Display for Site {
    /// What names it in the table and the list of decisions: no line, which any change would move.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {}",
            self.file, self.function, self.access, self.ordering
        )
    }
}

/// The sites of a file, but for those in its tests, which are behind everything else.
pub(crate) fn of(file: &str, text: &str) -> Vec<Site> {
    let mut sites: Vec<Site> = Vec::new();
    let (mut function, mut implemented) = (String::new(), String::new());
    let (mut pairs, mut start) = (None, 0);
    for line in text.split_inclusive('\n') {
        let here = start;
        start += line.len();
        let trimmed = line.trim();
        let is_for_tests = trimmed.starts_with("#[cfg(") && trimmed.contains("test");
        if is_for_tests && text[start..].starts_with("mod tests {") {
            break;
        }
        if let Some(comment) = trimmed.strip_prefix("//") {
            if let Some(said) = comment.trim_start().strip_prefix("Pairs: ") {
                pairs = Some(said.to_owned());
            }
            continue;
        }
        if let Some(header) = line
            .strip_prefix("unsafe ")
            .unwrap_or(line)
            .strip_prefix("impl")
        {
            implemented = format!("{}::", implementor(header));
        } else if line.starts_with('}') {
            implemented.clear();
        }
        if let Some(name) = function_on(trimmed) {
            function = format!("{implemented}{name}");
            pairs = None;
        }
        let code = line.split("//").next().unwrap_or(line);
        if code.trim_start().starts_with("use ") || code.contains("pub(crate) use ") {
            continue;
        }
        let mut found = false;
        for (column, ordering) in words(code) {
            let at = here + column;
            if let Some((access, kind)) = access_before(&text[..at]) {
                found = true;
                let (receiver, _) = access.rsplit_once('.').unwrap_or((&access, ""));
                let atomic = receiver.rsplit('.').next().unwrap_or(receiver).to_owned();
                let nth = sites
                    .iter()
                    .filter(|s| s.function == function && s.access.starts_with(&access))
                    .count();
                let access = match nth {
                    0 => access,
                    nth => format!("{access}#{}", nth + 1),
                };
                sites.push(Site {
                    file: file.to_owned(),
                    function: function.clone(),
                    access,
                    atomic,
                    ordering,
                    pairs: pairs.clone(),
                    kind,
                    at,
                });
            }
        }
        if found && trimmed.ends_with([';', '{', '}', ')']) {
            pairs = None;
        }
    }
    sites
}

/// The type of `<T> Trait for Type<T> {`, which follows `impl`.
fn implementor(header: &str) -> &str {
    let mut rest = header.trim_start();
    if rest.starts_with('<') {
        let mut depth = 0;
        let end = rest.find(|c| {
            depth += i32::from(c == '<') - i32::from(c == '>');
            depth == 0
        });
        rest = rest[end.map_or(0, |end| end + 1)..].trim_start();
    }
    let named = rest
        .split_once(" for ")
        .map_or(rest, |(_, implementor)| implementor);
    let end = named.find(|c: char| !c.is_alphanumeric() && c != '_');
    &named[..end.unwrap_or(named.len())]
}

fn function_on(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_declaration = before
        .split_whitespace()
        .all(|word| matches!(word, "const" | "unsafe") || word.starts_with("pub"));
    let end = after.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    (is_declaration && end > 0).then_some(&after[..end])
}

/// The orderings on a line, with their places.
fn words(code: &str) -> impl Iterator<Item = (usize, &'static str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found: Vec<_> = ORDERINGS
        .iter()
        .flat_map(|ordering| code.match_indices(ordering).map(|(at, _)| (at, *ordering)))
        .filter(|(at, word)| {
            !code[..*at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word)
        })
        .collect();
    found.sort_unstable();
    found.into_iter()
}

/// The access whose arguments the text ends in.
fn access_before(text: &str) -> Option<(String, Kind)> {
    const METHODS: [&str; 5] = ["load", "store", "swap", "fetch_", "compare_exchange"];
    let (dot, method) = METHODS
        .iter()
        .filter_map(|name| Some((text.rfind(&format!(".{name}"))?, *name)))
        .max()?;
    let kind = match method {
        "load" => Kind::Load,
        "store" => Kind::Store,
        _ => Kind::Change,
    };
    let name = &text[dot + 1..];
    let name = &name[..name.find('(')?];
    // Back over the receiver: a path of fields, or what is in parentheses, perhaps on lines of its own.
    let mut depth = 0;
    let begin = text[..dot].rfind(|c: char| {
        depth += i32::from(c == ')') - i32::from(c == '(');
        let is_path = c.is_alphanumeric() || c.is_whitespace() || "_.()".contains(c);
        depth < 0 || (depth == 0 && !is_path)
    });
    let receiver = text[begin.map_or(0, |begin| begin + 1)..dot].split_whitespace();
    let receiver = receiver.collect::<Vec<_>>().join(" ").replace(" .", ".");
    let receiver = receiver.rsplit(' ').next()?;
    Some((format!("{receiver}.{name}"), kind))
}

#[cfg(test)]
mod tests {
    use super::of;

    const TEXT: &str = "\
use crate::sync::Ordering;
impl<T: A<B>> Shape for Thing<T> {
    /// Is not `Acquire`.
    pub(crate) fn one(&self) -> bool {
        // `Release` here.
        if names(self.word.load(Ordering::Acquire), 1) {
            let set =
                self.word.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire);
        }
        self.word
            .fetch_add(1, Ordering::Relaxed); // not SeqCst
    }
}
unsafe fn two(table: *const Entry) {
    // Pairs: the one in `three`
    (*table.add(1)).store(2, SeqCst);
}
#[cfg(all(test, not(loom)))]
mod tests {
    fn three() { X.load(Ordering::Acquire) }
}
";

    #[test]
    fn sites_are_named_without_lines() {
        let sites = of("a/b.rs", TEXT);
        let names: Vec<_> = sites.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "a/b.rs Thing::one self.word.load Acquire",
                "a/b.rs Thing::one self.word.compare_exchange AcqRel",
                "a/b.rs Thing::one self.word.compare_exchange#2 Acquire",
                "a/b.rs two (*table.add(1)).store SeqCst",
            ]
        );
        assert!(
            sites
                .iter()
                .all(|site| TEXT[site.at..].starts_with(site.ordering))
        );
        assert_eq!(sites[1].weaker(), ["Acquire", "Release", "Relaxed"]);
        assert_eq!(sites[3].weaker(), ["Release", "Relaxed"]);
    }

    #[test]
    fn partners_access_the_same_atomic_the_other_way() {
        let sites = of("a/b.rs", TEXT);
        assert_eq!(sites[0].partners(&sites), "`Thing::one`");
        assert_eq!(sites[3].partners(&sites), "the one in `three`");
        assert_eq!(sites[3].partners(&[]), "the one in `three`");
        assert_eq!(sites[0].partners(&[]), "");
    }
}
