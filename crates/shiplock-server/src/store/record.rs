//! The stored form of events, `{v, kind, data}`: it outlives every version of this program.
//!
//! Kinds are only added. Where the form of a kind changes or a kind is removed, an [`Upcast`] turns what older
//! versions wrote into what this one reads; stored events are never rewritten. A kind or form that this version does
//! not know was written by a newer one: its log is refused with UPG0314, so that nobody folds past a fact that they
//! do not understand. Such an upgrade cannot be appended to either, since the length of a log comes from its fold.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shiplock_core::id::{Epoch, UpgradeId};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{Event, EventRecord};

/// The newest form of every kind.
pub const FORM: u32 = 1;

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// The form of `data`, from 1.
    pub v: u32,
    /// The kind.
    pub kind: String,
    /// What belongs to it, as JSON text; `null` where there is nothing.
    pub data: String,
}

/// An entry of a log as it is stored, in the form of a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRecord {
    /// The upgrade.
    pub upgrade: UpgradeId,
    /// Its number in the upgrade's log.
    pub number: u64,
    /// Its position in the whole store.
    pub position: u64,
    /// When it was appended.
    pub at: Timestamp,
    /// The epoch under which it was appended.
    pub epoch: Option<Epoch>,
    /// The form of `data`.
    pub v: u32,
    /// The kind.
    pub kind: String,
    /// What belongs to it.
    pub data: Value,
}

/// Turns one form of one kind into a newer one.
#[derive(Clone, Copy, Debug)]
pub struct Upcast {
    /// The kind that was stored.
    pub kind: &'static str,
    /// The form that was stored.
    pub v: u32,
    /// The kind of the result; another one where the stored kind was removed.
    pub to_kind: &'static str,
    /// The form of the result.
    pub to_v: u32,
    /// Turns the data, or says why it cannot.
    pub turn: fn(Value) -> Result<Value, String>,
}

/// The upcasts of this version. None yet: this is the first form of every kind.
const UPCASTS: &[Upcast] = &[];
/// More steps than there are upcasts mean that they run in a circle.
const UPCAST_STEPS_MAX: usize = 64;

/// The kinds that this version knows.
pub const KINDS: &[&str] = &[
    "planned",
    "lease_taken",
    "check_started",
    "check_finished",
    "started",
    "stage_started",
    "stage_finished",
    "batch_started",
    "batch_finished",
    "step_started",
    "step_succeeded",
    "step_failed",
    "node_skipped",
    "waiting_began",
    "interference_noticed",
    "pause_requested",
    "paused",
    "continued",
    "max_parallel_changed",
    "cancel_requested",
    "cancelled",
    "expiry_noticed",
    "expiry_began",
    "expired",
    "succeeded",
];

impl StoredEvent {
    /// The stored form of an event.
    pub fn encode(event: &Event) -> Result<Self, serde_json::Error> {
        let tagged: Tagged<Value> = serde_json::from_value(serde_json::to_value(event)?)?;
        Ok(Self { v: FORM, kind: tagged.kind, data: tagged.data.to_string() })
    }

    /// Reads the event, or says why this version cannot.
    pub fn decode(self) -> Result<Event, String> {
        self.decode_with(UPCASTS)
    }

    fn decode_with(mut self, upcasts: &[Upcast]) -> Result<Event, String> {
        for _ in 0..UPCAST_STEPS_MAX {
            let Some(upcast) = upcasts.iter().find(|upcast| upcast.kind == self.kind && upcast.v == self.v) else {
                return self.decode_newest();
            };
            let data = serde_json::from_str(&self.data).map_err(|error| self.broken(&error))?;
            let data = (upcast.turn)(data).map_err(|why| format!("kind `{}`, form {}: {why}", self.kind, self.v))?;
            self = Self { v: upcast.to_v, kind: upcast.to_kind.to_owned(), data: data.to_string() };
        }
        Err(format!("kind `{}`, form {}: its upcasts do not end", self.kind, self.v))
    }

    fn decode_newest(self) -> Result<Event, String> {
        if !KINDS.contains(&self.kind.as_str()) {
            return Err(format!("unknown kind `{}`", self.kind));
        }
        if self.v == 0 || self.v > FORM {
            return Err(format!("kind `{}` has the unknown form {}", self.kind, self.v));
        }
        // The kind is one of ours, so it needs no escapes. Joined text is read in one pass, which a tree is not.
        let text = format!(r#"{{"kind":"{}","data":{}}}"#, self.kind, self.data);
        serde_json::from_str(&text).map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &serde_json::Error) -> String {
        format!("kind `{}`, form {}: {error}", self.kind, self.v)
    }
}

#[derive(Deserialize)]
struct Tagged<T: Default> {
    kind: String,
    #[serde(default)]
    data: T,
}

impl StoredRecord {
    /// The stored form of an entry.
    pub fn encode(record: &EventRecord) -> Result<Self, serde_json::Error> {
        let StoredEvent { v, kind, data } = StoredEvent::encode(&record.event)?;
        Ok(Self {
            upgrade: record.upgrade.clone(),
            number: record.number,
            position: record.position,
            at: record.at,
            epoch: record.epoch,
            v,
            kind,
            data: serde_json::from_str(&data)?,
        })
    }

    /// Reads the entry, or refuses with the upgrade, the number and the kind.
    pub fn decode(self) -> Result<EventRecord, Problem> {
        let Self { upgrade, number, position, at, epoch, v, kind, data } = self;
        let event = StoredEvent { v, kind, data: data.to_string() };
        let event = event.decode().map_err(|why| unreadable(&upgrade, number, why))?;
        Ok(EventRecord { upgrade, number, position, at, epoch, event })
    }
}

/// An event that this version cannot read.
pub(super) fn unreadable(upgrade: &UpgradeId, number: u64, why: String) -> Problem {
    Problem::new(Code::LogUnreadable).with("upgrade", upgrade).with("number", number).with("why", why)
}

#[cfg(test)]
mod tests;
