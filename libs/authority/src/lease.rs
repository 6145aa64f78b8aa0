//! The lease: who renews it may be alive, who cannot is not needed.

use serde::{Deserialize, Serialize};

use crate::Member;

/// The content of a group's lease. It holds no time: who wants it watches for how long it does
/// not change, on a clock of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lease {
    /// Nobody holds a lease that was never taken or was given back.
    pub holder: Option<Member>,
    /// Grows with each renewal, so that a renewal is a change.
    pub renewals: u64,
}

impl Lease {
    /// The lease as `holder` renews or takes it.
    pub fn taken_by(self, holder: Member) -> Self {
        Self { holder: Some(holder), renewals: self.renewals + 1 }
    }
}
