//! How actions are drawn, of a fuzzer's bytes or of a generator's: by the same shares.

use crate::Rng;
use crate::action::{Action, HUGE};
use arbitrary::{Arbitrary, Result, Unstructured};
use temporal_slab::provider::Fault;
use temporal_slab::{Emptied, Policy};

/// How an action is drawn.
type Draw = fn(&mut Unstructured<'_>) -> Result<Action>;

/// How often of 256 each action comes.
const DRAWS: [(u8, Draw); 41] = [
    (67, |u| {
        let (local, epoch) = (local(u)?, epoch(u)?);
        let align = [0, 0, 0, 3, 4, 6, 8, 12, 14, 17][below(u, 10)?];
        let (zeroed, named) = (below(u, 4)? == 0, below(u, 4)? == 0);
        Ok(Action::Alloc {
            local,
            epoch,
            size: size(u)?,
            align,
            zeroed,
            named,
        })
    }),
    (8, |u| {
        Ok(Action::Batch {
            local: local(u)?,
            epoch: epoch(u)?,
            size: small(u)?,
            count: u.arbitrary()?,
        })
    }),
    (2, |u| {
        Ok(Action::Sampled {
            local: local(u)?,
            size: small(u)?,
        })
    }),
    (63, |u| {
        Ok(Action::Free {
            local: local(u)?,
            object: u.arbitrary()?,
        })
    }),
    (6, |u| {
        Ok(Action::FreeAny {
            local: local(u)?,
            object: u.arbitrary()?,
        })
    }),
    (6, |u| {
        Ok(Action::FreeMany {
            local: local(u)?,
            object: u.arbitrary()?,
            count: u.arbitrary()?,
        })
    }),
    (10, |u| {
        Ok(Action::Resize {
            local: local(u)?,
            object: u.arbitrary()?,
            size: size(u)?,
        })
    }),
    (5, |u| {
        Ok(Action::Misuse {
            local: local(u)?,
            object: u.arbitrary()?,
            how: u.arbitrary()?,
        })
    }),
    (4, |u| Ok(Action::Flush { local: local(u)? })),
    (3, |u| {
        Ok(Action::Leave {
            local: local(u)?,
            epoch: u.arbitrary()?,
        })
    }),
    (3, |u| Ok(Action::Renew { local: local(u)? })),
    (3, |_| Ok(Action::Reclaim)),
    (2, |u| {
        Ok(Action::ReclaimTo {
            bytes: u32::from(u.arbitrary::<u16>()?) << 3,
        })
    }),
    (1, |u| {
        Ok(Action::Reserve {
            bytes: u32::from(u.arbitrary::<u16>()?),
        })
    }),
    (1, |_| Ok(Action::Idle)),
    (1, |_| Ok(Action::Pause)),
    (4, |u| Ok(Action::Policy(policy(u)?))),
    (2, |u| {
        Ok(Action::Limit {
            more: u
                .arbitrary::<Option<u16>>()?
                .map(|more| u32::from(more) << 2),
        })
    }),
    (4, |u| {
        Ok(Action::Break {
            after: u.arbitrary::<u8>()? % 8,
            count: u.arbitrary()?,
            fault: fault(u)?,
        })
    }),
    (3, |_| Ok(Action::Mend)),
    (5, |u| {
        Ok(Action::Open {
            current: u.arbitrary()?,
        })
    }),
    (5, |u| {
        Ok(Action::Close {
            epoch: u.arbitrary()?,
        })
    }),
    (2, |u| {
        Ok(Action::Label {
            epoch: u.arbitrary()?,
            label: u.arbitrary()?,
        })
    }),
    (1, |u| {
        Ok(Action::Token {
            index: u.arbitrary::<u8>()?.into(),
            era: u.arbitrary()?,
        })
    }),
    (2, |u| {
        Ok(Action::Count {
            epoch: u.arbitrary()?,
            enters: u.arbitrary()?,
            closes: u.arbitrary()?,
        })
    }),
    (3, |u| {
        Ok(Action::Enter {
            epoch: u.arbitrary()?,
            closes: u.arbitrary()?,
            nested: u.arbitrary()?,
        })
    }),
    (3, |_| Ok(Action::Exit)),
    (2, |u| {
        Ok(Action::AllocInside {
            local: local(u)?,
            size: small(u)?,
        })
    }),
    (6, |u| {
        Ok(Action::Insert {
            local: local(u)?,
            epoch: epoch(u)?,
            kind: u.arbitrary()?,
        })
    }),
    (3, |u| {
        Ok(Action::Read {
            value: u.arbitrary()?,
            times: u.arbitrary()?,
        })
    }),
    (3, |u| {
        Ok(Action::Unread {
            reading: u.arbitrary()?,
        })
    }),
    (3, |u| {
        Ok(Action::Remove {
            local: local(u)?,
            value: u.arbitrary()?,
        })
    }),
    (2, |u| {
        Ok(Action::Take {
            local: local(u)?,
            value: u.arbitrary()?,
        })
    }),
    (1, |u| {
        Ok(Action::Forget {
            local: local(u)?,
            value: u.arbitrary()?,
        })
    }),
    (3, |u| {
        let flips = 1u64.rotate_left(u.arbitrary::<u8>()?.into())
            ^ 1u64.rotate_left(u.arbitrary::<u8>()?.into());
        Ok(Action::Forge {
            local: local(u)?,
            handle: u.arbitrary()?,
            flips,
        })
    }),
    (1, |_| Ok(Action::Scope)),
    (7, |u| {
        let (scope, how) = (u.arbitrary()?, u.arbitrary()?);
        Ok(Action::InScope {
            scope,
            how,
            size: small(u)?,
            align: below(u, 13)? as u8,
        })
    }),
    (1, |u| {
        Ok(Action::Reset {
            scope: u.arbitrary()?,
        })
    }),
    (1, |u| {
        Ok(Action::EndScope {
            scope: u.arbitrary()?,
        })
    }),
    (3, |u| {
        Ok(Action::Adapt {
            through: u.arbitrary()?,
            epoch: epoch(u)?,
            size: small(u)?,
        })
    }),
    (1, |u| {
        if below(u, 8)? > 0 {
            Ok(Action::Stats)
        } else {
            Ok(Action::Report {
                kind: u.arbitrary()?,
            })
        }
    }),
];

const _: () = {
    let (mut sum, mut index) = (0, 0);
    while index < DRAWS.len() {
        sum += DRAWS[index].0 as usize;
        index += 1;
    }
    assert!(sum == 256, "shares of 256");
};

impl<'a> Arbitrary<'a> for Action {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut left = u.arbitrary::<u8>()?;
        for (share, draw) in DRAWS {
            match left.checked_sub(share) {
                Some(less) => left = less,
                None => return draw(u),
            }
        }
        unreachable!("the shares are 256")
    }
}

impl Action {
    /// A random step.
    ///
    /// # Panics
    /// Never: there are more bytes than any action takes.
    pub fn random(rng: &mut Rng) -> Self {
        let bytes: [[u8; 8]; 8] = core::array::from_fn(|_| rng.next().to_le_bytes());
        let mut bytes = Unstructured::new(bytes.as_flattened());
        bytes.arbitrary().expect("an action takes a few bytes")
    }
}

fn below(u: &mut Unstructured<'_>, n: usize) -> Result<usize> {
    u.int_in_range(0..=n - 1)
}

/// One of three locals, or the shared path.
fn local(u: &mut Unstructured<'_>) -> Result<u8> {
    Ok(below(u, 4)? as u8)
}

/// None, every other time.
fn epoch(u: &mut Unstructured<'_>) -> Result<u8> {
    Ok(u.arbitrary::<u8>()?.saturating_sub(128))
}

/// Sizes of all classes and routes, small ones more often.
fn size(u: &mut Unstructured<'_>) -> Result<u32> {
    let most = match u.arbitrary::<u8>()? {
        0..=152 => 800,
        153..=216 => 9000,
        217..=242 => 40_000,
        243..=254 => 200_000,
        255 => return Ok(HUGE + u32::from(u.arbitrary::<u8>()? % 64)),
    };
    Ok(below(u, most)? as u32)
}

fn small(u: &mut Unstructured<'_>) -> Result<u16> {
    let most = if u.arbitrary::<u8>()? < 240 {
        400
    } else {
        20_000
    };
    Ok(below(u, most)? as u16)
}

fn policy(u: &mut Unstructured<'_>) -> Result<Policy> {
    let bytes = below(u, 200_000)?;
    Ok(match below(u, 5)? {
        0 => Policy::EAGER,
        1 if bytes % 3 == 2 => Policy {
            emptied: Emptied::Return,
            ..Policy::keeping(bytes)
        },
        1 => Policy::keeping(bytes),
        2 => Policy::ON_CLOSE,
        3 => Policy::NEVER,
        _ => Policy::proportional(bytes),
    })
}

fn fault(u: &mut Unstructured<'_>) -> Result<Fault> {
    let odd = 1 + below(u, 4095)?;
    Ok(match below(u, 12)? {
        0 => Fault::Misaligned(odd),
        1 => Fault::Short(odd),
        2 => Fault::Overlapping,
        3 => Fault::TopOfMemory,
        _ => Fault::Refuse,
    })
}
