//! Faults between a client and the objects.

use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What happens to matching requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Fault {
    /// Only requests with this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Only requests with this in their path.
    #[serde(default)]
    pub path: String,
    /// How many of them; 0: all, until faults are taken away.
    #[serde(default)]
    pub times: u32,
    pub effect: Effect,
}

/// The fault itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// The request is acted upon this many milliseconds later.
    DelayMs(u64),
    /// It is acted upon, and its answer leaves this many milliseconds later.
    AnswerLateMs(u64),
    /// The connection is cut before anything is done.
    Cut,
    /// It is acted upon, and the connection is cut without an answer.
    LoseAnswer,
    /// Nothing is done and nothing answered.
    Hang,
    /// This status code is answered and nothing done.
    Refuse(u16),
    /// It is acted upon, and this status code is answered.
    AnswerWrongly(u16),
}

impl Fault {
    /// For the next request with this method and this in its path.
    pub fn once(method: &str, path: &str, effect: Effect) -> Self {
        Self { method: Some(method.to_owned()), path: path.to_owned(), times: 1, effect }
    }

    /// For all requests with this in their path.
    pub fn always(path: &str, effect: Effect) -> Self {
        Self { method: None, path: path.to_owned(), times: 0, effect }
    }
}

/// The faults that are set, in the order in which they are looked through.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    pub(crate) fn add(&self, fault: Fault) {
        self.0.lock().push(fault);
    }

    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }

    pub(crate) fn meet(&self, method: &str, path: &str) -> Option<Effect> {
        let mut faults = self.0.lock();
        let nth = faults.iter().position(|fault| {
            path.contains(&fault.path)
                && fault.method.as_ref().is_none_or(|wanted| wanted == method)
        })?;
        let effect = faults[nth].effect;
        match faults[nth].times {
            0 => {}
            1 => drop(faults.remove(nth)),
            _ => faults[nth].times -= 1,
        }
        Some(effect)
    }
}

pub(crate) fn milliseconds(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
