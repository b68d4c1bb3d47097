//! The tables of all figures: one place gives each its name, its kind and its meaning, and every encoding is made
//! of these.
//!
//! A name without a label is one figure. Figures that follow each other under one name are parts of it, told
//! apart by their label.

mod tables;

pub use tables::{of_class, of_epoch, of_heap, of_label};

/// Whether a figure only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something that happened: it only grows.
    Counter,
    /// Something that there is: it comes and goes.
    Gauge,
}

/// A figure's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A number of things, bytes or nanoseconds.
    Count(u64),
    /// A share, from 0 to 1.
    Share(f64),
}

/// One figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its name, in every encoding.
    pub name: &'static str,
    /// What tells it from others of its name: a label's name and value.
    pub part: Option<(&'static str, &'static str)>,
    /// What it means.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// The value.
    pub value: Value,
}

/// Takes figures one by one.
pub type Sink<'a> = &'a mut dyn FnMut(Metric);

fn count(to: Sink<'_>, name: &'static str, help: &'static str, value: u64) {
    to(Metric {
        name,
        part: None,
        help,
        kind: Kind::Counter,
        value: Value::Count(value),
    });
}

fn gauge(to: Sink<'_>, name: &'static str, help: &'static str, value: u64) {
    to(Metric {
        name,
        part: None,
        help,
        kind: Kind::Gauge,
        value: Value::Count(value),
    });
}

fn share(to: Sink<'_>, name: &'static str, help: &'static str, value: f64) {
    to(Metric {
        name,
        part: None,
        help,
        kind: Kind::Gauge,
        value: Value::Share(value),
    });
}

/// Parts of one figure.
struct Parts {
    name: &'static str,
    label: &'static str,
    help: &'static str,
    kind: Kind,
}

impl Parts {
    fn put<'p>(&self, to: Sink<'_>, parts: impl IntoIterator<Item = &'p (&'static str, u64)>) {
        for (part, value) in parts {
            to(Metric {
                name: self.name,
                part: Some((self.label, part)),
                help: self.help,
                kind: self.kind,
                value: Value::Count(*value),
            });
        }
    }
}
