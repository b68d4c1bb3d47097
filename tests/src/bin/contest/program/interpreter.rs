//! What interpreters of dynamic languages do: objects of 16 to 48 bytes that live for moments.

use super::Pattern;
use super::objects::Rng;
use std::hint::black_box;

pub(super) const PATTERNS: [Pattern; 1] = [("interpreter", interpreter)];

fn interpreter() -> usize {
    let mut rng = Rng(41);
    let mut units = 0;
    for _ in 0..180 {
        let tree = Tree::new(14, &mut rng);
        units += tree.count();
        drop(tree);
        units += lists(5000);
        units += numbers(150);
        units += expressions(&mut rng);
    }
    units
}

/// Of 24 bytes.
struct Tree {
    left: Option<Box<Tree>>,
    right: Option<Box<Tree>>,
    value: u64,
}

impl Tree {
    fn new(depth: usize, rng: &mut Rng) -> Box<Self> {
        let mut below = || (depth > 0).then(|| Self::new(depth - 1, rng));
        let (left, right) = (below(), below());
        Box::new(Self {
            left,
            right,
            value: rng.next(),
        })
    }

    fn count(&self) -> usize {
        black_box(self.value);
        let below = [&self.left, &self.right].into_iter().flatten();
        1 + below.map(|tree| tree.count()).sum::<usize>()
    }
}

/// Of 16 bytes.
struct Link {
    next: Option<Box<Link>>,
    value: u64,
}

/// A list is made, mapped to another, reversed in place, filtered; each is dropped when the next is there.
fn lists(count: usize) -> usize {
    let mut first = None;
    for value in 0..count as u64 {
        first = Some(Box::new(Link { next: first, value }));
    }
    let mut mapped = None;
    let mut rest = &first;
    while let Some(link) = rest {
        let value = link.value * 3;
        mapped = Some(Box::new(Link {
            next: mapped,
            value,
        }));
        rest = &link.next;
    }
    unlink(first);
    let mut kept = None;
    while let Some(mut link) = mapped {
        mapped = link.next.take();
        if link.value.is_multiple_of(2) {
            link.next = kept;
            kept = Some(link);
        }
    }
    unlink(kept);
    2 * count
}

/// Drops a list from its head on, without a call for each link.
fn unlink(mut list: Option<Box<Link>>) {
    while let Some(mut link) = list {
        list = link.next.take();
    }
}

/// A number of any length, its lowest word first.
fn add(a: &[u64], b: &[u64]) -> Vec<u64> {
    let (long, short) = if a.len() < b.len() { (b, a) } else { (a, b) };
    let mut sum = Vec::with_capacity(long.len() + 1);
    let mut carry = false;
    for (place, &word) in long.iter().enumerate() {
        let (part, over) = word.overflowing_add(short.get(place).copied().unwrap_or(0));
        let (part, over_again) = part.overflowing_add(u64::from(carry));
        carry = over | over_again;
        sum.push(part);
    }
    if carry {
        sum.push(1);
    }
    sum
}

fn multiply(a: &[u64], by: u64) -> Vec<u64> {
    let mut product = Vec::with_capacity(a.len() + 1);
    let mut carry = 0;
    for &word in a {
        let part = u128::from(word) * u128::from(by) + carry;
        product.push(part as u64);
        carry = part >> 64;
    }
    if carry > 0 {
        product.push(carry as u64);
    }
    product
}

/// Numbers of Fibonacci's, and a factorial: each value is a new one.
fn numbers(count: usize) -> usize {
    let (mut a, mut b) = (vec![0], vec![1]);
    let mut factorial = vec![1];
    for n in 1..=count as u64 {
        let sum = add(&a, &b);
        a = core::mem::replace(&mut b, sum);
        factorial = multiply(&factorial, n);
    }
    black_box((a, b, factorial));
    2 * count
}

/// Of 24 bytes, in boxes.
enum Expression {
    Number(u64),
    Variable(u8),
    Add(Box<Expression>, Box<Expression>),
    If(Box<(Expression, Expression, Expression)>),
}

/// What an expression comes to: in a box, as such interpreters have it, with 32 or 48 bytes.
enum Value {
    Number(u64),
    Text(String),
}

impl Expression {
    fn new(depth: usize, rng: &mut Rng) -> Self {
        match (depth, rng.below(6)) {
            (0, 0..3) => Self::Number(rng.next() >> 40),
            (0, _) => Self::Variable(rng.below(8) as u8),
            (_, 0) => Self::If(Box::new((
                Self::new(depth - 1, rng),
                Self::new(depth - 1, rng),
                Self::new(depth - 1, rng),
            ))),
            _ => Self::Add(
                Box::new(Self::new(depth - 1, rng)),
                Box::new(Self::new(depth - 1, rng)),
            ),
        }
    }

    fn evaluate(&self, variables: &[u64; 8], units: &mut usize) -> Box<Value> {
        *units += 1;
        match self {
            Self::Number(number) => Box::new(Value::Number(*number)),
            // Some variables are texts.
            Self::Variable(name @ 6..) => Box::new(Value::Text(format!("text {name}"))),
            Self::Variable(name) => Box::new(Value::Number(variables[usize::from(*name)])),
            Self::Add(left, right) => {
                let (left, right) = (
                    left.evaluate(variables, units),
                    right.evaluate(variables, units),
                );
                Box::new(match (*left, *right) {
                    (Value::Number(a), Value::Number(b)) => Value::Number(a.wrapping_add(b)),
                    (Value::Number(n), Value::Text(text))
                    | (Value::Text(text), Value::Number(n)) => Value::Number(n ^ text.len() as u64),
                    // As long as one of them, so that texts stay short.
                    (Value::Text(a), Value::Text(b)) => Value::Text(if a < b { a } else { b }),
                })
            }
            Self::If(parts) => {
                let (condition, yes, no) = &**parts;
                let is_odd =
                    matches!(*condition.evaluate(variables, units), Value::Number(n) if n % 2 == 1);
                if is_odd { yes } else { no }.evaluate(variables, units)
            }
        }
    }
}

/// One expression is made, and evaluated with other variables each time.
fn expressions(rng: &mut Rng) -> usize {
    let expression = Expression::new(9, rng);
    let mut units = 0;
    for turn in 0..20u64 {
        let variables = core::array::from_fn(|n| turn.wrapping_mul(n as u64 + 3));
        black_box(expression.evaluate(&variables, &mut units));
    }
    units
}
