//! Configurations for tests.

use temporal_slab::config::{Checked, Config, DefaultLock, Fine, Unchecked};
use temporal_slab::lock_api::RawMutex;
use temporal_slab::provider::PageProvider;

/// Configurations that differ in provider and lock alone. A test that runs over providers of its own takes one of these.
pub trait Family {
    /// The one over a provider and a lock.
    type Over<P: PageProvider, L: RawMutex>: Config<Provider = P, Lock = L>;
}

/// The configuration of a family over a provider, with the default lock.
pub type Over<F, P> = <F as Family>::Over<P, DefaultLock>;

impl Family for Checked<()> {
    type Over<P: PageProvider, L: RawMutex> = Checked<P, L>;
}
impl Family for Unchecked<()> {
    type Over<P: PageProvider, L: RawMutex> = Unchecked<P, L>;
}
impl Family for Fine<()> {
    type Over<P: PageProvider, L: RawMutex> = Fine<P, L>;
}

/// Makes configurations over any provider and, with the default lock unless another is named, any lock: `Name<P>` or
/// `Name<P, L>`; `Name<()>` is their [`Family`].
#[macro_export]
macro_rules! configs {
    ($($(#[$doc:meta])* $vis:vis struct $name:ident { $($constant:item)* })+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        $vis struct $name<P, L = temporal_slab::config::DefaultLock>(
            core::marker::PhantomData<fn() -> (P, L)>,
        );
        impl<P, L> temporal_slab::config::Config for $name<P, L>
        where
            P: temporal_slab::provider::PageProvider,
            L: temporal_slab::lock_api::RawMutex,
        {
            type Provider = P;
            type Lock = L;
            $($constant)*
        }
        impl $crate::Family for $name<()> {
            type Over<
                P: temporal_slab::provider::PageProvider,
                L: temporal_slab::lock_api::RawMutex,
            > = $name<P, L>;
        }
    )+};
}
