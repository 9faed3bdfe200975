//! The fields of each kind as one table: it makes the types that hold them, the reader, the writer,
//! and the rows that the specification has to have.
//!
//! What a field has to do with other fields, and with its place, is in `rules.rs`.

use alloc::{string::String, vec::Vec};

use super::{
    StatementError,
    draft::Lines,
    grammar::{Field, Frame},
    kinds::{Apply, Checkpoint, Closed, Kind, NamedKey, Payload, Role, Rollout, Target, Urgency},
    value::{self, Line},
};
use crate::{Channel, Head, Serial, Timestamp};

/// A field, as the specification has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The kind that it belongs to; none for what is in each.
    pub kind: Option<Kind>,
    /// Its name.
    pub name: &'static str,
    /// Its value in ABNF.
    pub form: &'static str,
    /// How often it stands: `required` and `optional` fields once at most, `repeatable` ones as
    /// often as one likes.
    pub often: &'static str,
}

/// The fields that every kind has: the first lines in their order, the list of critical fields, the
/// signatures.
pub(super) const COMMON: [Row; 8] = [
    common("Tidings", "\"1\" SP kind", "required"),
    common("Channel", "channel", "required"),
    common("Serial", "serial", "required"),
    common("Previous", "\"-\" / digest", "required"),
    common("Time", "time", "required"),
    common("Trust", "serial", "required"),
    common("Critical", "word *(SP word)", "optional"),
    common("Signature", "public-key SP 86base64url", "repeatable"),
];

const fn common(name: &'static str, form: &'static str, often: &'static str) -> Row {
    Row {
        kind: None,
        name,
        form,
        often,
    }
}

/// All fields that this version gives a meaning.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    COMMON.iter().chain(OF_KINDS.iter().copied().flatten())
}

macro_rules! held {
    (required $type:ty) => { $type };
    (optional $type:ty) => { Option<$type> };
    (repeatable $type:ty) => { Vec<$type> };
    (standard $type:ty) => { $type };
}

/// Where the values of a field are while lines are read.
macro_rules! slot {
    (repeatable $type:ty) => { Vec<$type> };
    ($often:ident $type:ty) => { Option<$type> };
}

macro_rules! take {
    (repeatable $slot:ident $line:ident $grammar:path, $expected:literal) => {
        $slot.push($line.value($grammar, $expected)?)
    };
    ($often:ident $slot:ident $line:ident $grammar:path, $expected:literal) => {
        $line.once(&mut $slot, $grammar, $expected)?
    };
}

macro_rules! whole {
    (required $slot:ident $frame:ident $name:literal) => {
        $frame.required($slot, $name)?
    };
    (standard $slot:ident $frame:ident $name:literal) => {
        $slot.unwrap_or_default()
    };
    ($often:ident $slot:ident $frame:ident $name:literal) => {
        $slot
    };
}

macro_rules! say {
    (required $text:ident $name:literal $value:expr) => {
        $text.line($name, Line($value))
    };
    (standard $text:ident $name:literal $value:expr) => {
        if *$value != Default::default() {
            $text.line($name, Line($value))
        }
    };
    (optional $text:ident $name:literal $value:expr) => {
        if let Some(value) = $value {
            $text.line($name, Line(value))
        }
    };
    (repeatable $text:ident $name:literal $value:expr) => {
        for value in $value {
            $text.line($name, Line(value))
        }
    };
}

/// `standard` fields have a value that is meant where they are left out; for the specification they
/// are optional.
macro_rules! often {
    (standard) => {
        "optional"
    };
    ($often:ident) => {
        stringify!($often)
    };
}

macro_rules! fields {
    ($(
        $(#[$about:meta])*
        $type:ident of $kind:ident {
            $(
                $(#[$doc:meta])*
                $field:ident: $often:ident $value:ty
                = $name:literal $form:literal by $grammar:path, $expected:literal;
            )*
        }
    )*) => {
        $(
            $(#[$about])*
            pub struct $type {
                $( $(#[$doc])* pub $field: held!($often $value), )*
            }

            impl $type {
                const ROWS: &'static [Row] = &[
                    $( Row {
                        kind: Some(Kind::$kind),
                        name: $name,
                        form: $form,
                        often: often!($often),
                    }, )*
                ];

                /// Each by its own grammar.
                pub(super) fn read(
                    lines: &[Field<'_>],
                    frame: &Frame<'_>,
                ) -> Result<Self, StatementError> {
                    $( let mut $field: slot!($often $value) = Default::default(); )*
                    for line in lines {
                        match line.name {
                            $( $name => take!($often $field line $grammar, $expected), )*
                            _ => {}
                        }
                    }
                    Ok(Self { $( $field: whole!($often $field frame $name), )* })
                }

                /// In the order of the table.
                pub(super) fn write(&self, text: &mut Lines) {
                    $( say!($often text $name &self.$field); )*
                }
            }
        )*

        const OF_KINDS: &[&[Row]] = &[ $( $type::ROWS, )* ];
    };
}

fields! {
    /// Something new to install.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    Release of Release {
        /// An opaque token; order is by serial, never by version.
        version: required String
            = "Version" "token" by value::token, "a token of up to 128 graphic ASCII characters";
        /// One line for people.
        summary: optional String = "Summary" "value" by value::text, "text";
        /// Where people can read more.
        details: optional String = "Details" "url" by value::url, "a URL";
        /// How soon.
        urgency: standard Urgency
            = "Urgency" "%s\"routine\" / %s\"security\" / %s\"critical\""
            by value::urgency, "routine, security or critical";
        /// For whom: any of these; none means all.
        targets: repeatable Target
            = "Target" "property *(SP property)" by value::target, "KEY=VALUE…";
        /// The serial that must have been applied first.
        barrier: optional Serial = "Barrier" "serial" by value::serial, "a serial";
        /// Not to be applied earlier.
        not_before: optional Timestamp
            = "Not-Before" "time" by value::time, "YYYY-MM-DDTHH:MM:SSZ";
        /// To be applied by then at the latest.
        deadline: optional Timestamp
            = "Deadline" "time" by value::time, "YYYY-MM-DDTHH:MM:SSZ";
        /// The window in which it spreads.
        rollout: optional Rollout
            = "Rollout" "time SP number [SP %s\"spread=\" number] [SP %s\"cohort=\" word]"
            by value::rollout, "START SECONDS [spread=SECONDS] [cohort=KEY]";
        /// The group in which a slot is needed before going down.
        slot: optional String = "Slot" "word" by value::word, "a group's name";
        /// What makes it effective.
        apply: optional Apply
            = "Apply"
            r#"%s"reboot" / %s"kexec" / %s"restart" 1*(SP unit) / %s"live" / %s"none""#
            by value::apply, "reboot, kexec, restart UNIT…, live or none";
        /// The ways to get it.
        payloads: repeatable Payload
            = "Payload" "word SP number SP digest SP url *(SP property)"
            by value::payload, "FORMAT SIZE sha256:HEX URL [KEY=VALUE…]";
    }

    /// A release is called back.
    #[derive(Clone, Debug, PartialEq, Eq)]
    Withdraw of Withdraw {
        /// Serial and id of the release: a withdrawal counts against this statement, on whatever
        /// branch it was met.
        withdraws: required Head = "Withdraws" "serial SP digest" by value::head, "SERIAL ID";
        /// Why, for people.
        reason: required String = "Reason" "value" by value::text, "text";
    }

    /// Who may say what in a namespace.
    #[derive(Clone, Debug, PartialEq, Eq)]
    TrustRules of Trust {
        /// From then on nothing is installed under this statement; reading goes on.
        expires: required Timestamp = "Expires" "time" by value::time, "YYYY-MM-DDTHH:MM:SSZ";
        /// The keys.
        keys: repeatable NamedKey
            = "Key" "public-key SP word" by value::named_key, "ed25519:KEY NAME";
        /// The roles.
        roles: repeatable Role
            = "Role" "kind SP pattern SP number 1*(SP word)"
            by value::role, "KIND PATTERN THRESHOLD NAME…";
        /// Settled places of logs.
        checkpoints: repeatable Checkpoint
            = "Checkpoint" "channel SP serial SP digest"
            by value::checkpoint, "CHANNEL SERIAL ID";
        /// Channels that are closed for good.
        closed: repeatable Closed
            = "Closed" "pattern *(SP channel)" by value::closed, "PATTERN [CHANNEL…]";
    }

    /// What was newest at the statement's time.
    #[derive(Clone, Debug, PartialEq, Eq)]
    Beat of Beat {
        /// Until then this beat proves that nobody holds news back.
        expires: required Timestamp = "Expires" "time" by value::time, "YYYY-MM-DDTHH:MM:SSZ";
        /// The heads of the channels it speaks for.
        heads: repeatable (Channel, Head)
            = "Head" "channel SP serial SP digest" by value::place, "CHANNEL SERIAL ID";
    }
}
