//! What is wrong with a machine, from what it says of itself: conditions of its Node, and the taints that follow
//! from them. Pure.
//!
//! A condition is written when it holds for the first time, and then when it changes: of a machine that is well
//! nothing ever is. What a machine does not tell is not wrong with it.

use std::time::{Duration, SystemTime};

use hive_proto::memory::least_available;
use hive_proto::v1::Usage;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use serde_json::Value;

use crate::node_record::NodeRecord;
use crate::objects;

/// How long a condition stays as it is at least, so that a machine on a threshold writes once a minute at most.
const HOLD: Duration = Duration::from_secs(60);

/// Degrees Celsius at the hottest sensor. Phones and boards slow themselves down from about 80 on; ten degrees
/// less is a machine that has rested.
const HOT: (f32, f32) = (75.0, 65.0);

/// Percent of a battery that nothing charges: what is left is its owner's.
const LOW_BATTERY: (u32, u32) = (20, 30);

/// Which taint a node has while a condition holds. A swarm of phones on mobile data must run something, so only
/// what would fail at once is kept off altogether.
const TAINTS: [(&str, &str, &str); 4] = [
    ("Hot", "hive.dev/hot", "PreferNoSchedule"),
    ("LowBattery", "hive.dev/low-battery", "PreferNoSchedule"),
    ("Metered", "hive.dev/metered", "PreferNoSchedule"),
    ("MemoryPressure", MEMORY_PRESSURE, "NoSchedule"),
];

/// The key of the taint of a node that is short of memory.
pub const MEMORY_PRESSURE: &str = "hive.dev/memory-pressure";

/// A condition that is another from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub kind: &'static str,
    pub holds: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Change {
    pub fn write(&self, status: &mut Value, now: SystemTime) {
        let value = if self.holds { "True" } else { "False" };
        objects::set_condition(status, self.kind, value, self.reason, &self.message, now);
    }
}

/// What a machine's figures say of one condition.
struct Judgement {
    kind: &'static str,
    verdict: Verdict,
    /// Where it holds, and where it does not.
    reasons: (&'static str, &'static str),
    /// The figures.
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Holds,
    /// Between the thresholds: as it was.
    Either,
    Not,
}

impl Verdict {
    fn of(holds: bool, is_over: bool) -> Self {
        match (holds, is_over) {
            (true, _) => Self::Holds,
            (false, true) => Self::Not,
            (false, false) => Self::Either,
        }
    }
}

/// Which of a node's conditions change by what its machine says.
pub fn changes(node: &NodeRecord, usage: &Usage, now: Timestamp) -> Vec<Change> {
    let changed = judge(usage).into_iter().filter_map(|judgement| {
        let known = node.condition(judgement.kind);
        let held = known.is_some_and(|known| known.status == "True");
        let holds = match judgement.verdict {
            Verdict::Holds => true,
            Verdict::Either => held,
            Verdict::Not => false,
        };
        let may_change = known.is_none_or(|known| known.since.is_none_or(|at| at + HOLD <= now));
        (holds != held && may_change).then_some(Change {
            kind: judgement.kind,
            holds,
            reason: match holds {
                true => judgement.reasons.0,
                false => judgement.reasons.1,
            },
            message: judgement.message,
        })
    });
    changed.collect()
}

/// The taints that follow from the conditions that hold.
pub fn taints<'a>(holding: impl Iterator<Item = &'a str>) -> impl Iterator<Item = Taint> {
    holding.filter_map(|kind| {
        let (_, key, effect) = TAINTS.iter().find(|(of, ..)| *of == kind)?;
        Some(Taint {
            key: (*key).to_owned(),
            effect: (*effect).to_owned(),
            ..Taint::default()
        })
    })
}

/// The conditions that keep new copies off, of those that hold.
pub fn is_adverse(kind: &str) -> bool {
    TAINTS.iter().any(|(of, ..)| *of == kind)
}

fn judge(usage: &Usage) -> [Judgement; 4] {
    let heat = usage.temperature_celsius;
    let hot = Judgement {
        kind: "Hot",
        verdict: Verdict::of(
            heat.is_some_and(|heat| heat >= HOT.0),
            heat.is_none_or(|heat| heat < HOT.1),
        ),
        reasons: ("TooHot", "CooledDown"),
        message: match heat {
            Some(heat) => format!("{heat:.0} °C at the hottest sensor"),
            None => "no sensor tells".to_owned(),
        },
    };
    let left = match usage.battery_charging {
        Some(false) => usage.battery_percent,
        // On the cable, or without a battery.
        Some(true) | None => None,
    };
    let low_battery = Judgement {
        kind: "LowBattery",
        verdict: Verdict::of(
            left.is_some_and(|left| left <= LOW_BATTERY.0),
            left.is_none_or(|left| left >= LOW_BATTERY.1),
        ),
        reasons: ("BatteryLow", "BatterySufficient"),
        message: match (left, usage.battery_percent) {
            (Some(left), _) => format!("{left} % left, and nothing charges the battery"),
            (None, Some(percent)) => format!("the battery has {percent} % and is charged"),
            (None, None) => "no battery tells".to_owned(),
        },
    };
    let is_metered = usage.metered == Some(true);
    let metered = Judgement {
        kind: "Metered",
        verdict: Verdict::of(is_metered, !is_metered),
        reasons: ("MeteredLink", "UnmeteredLink"),
        message: match is_metered {
            true => "what the machine sends and receives is paid for",
            false => "what the machine sends and receives is not counted",
        }
        .to_owned(),
    };
    let available = usage.memory_available_bytes;
    let all = available.saturating_add(usage.memory_used_bytes);
    let least = least_available(all);
    let memory = Judgement {
        kind: "MemoryPressure",
        verdict: match usage.memory_pressure {
            // It knows more than its figures say, and acts on that.
            Some(is_short) => Verdict::of(is_short, !is_short),
            // Of the release before. Where nothing is told, all is zero: that is not less than nothing.
            None => Verdict::of(available < least, available >= 2 * least),
        },
        reasons: ("InsufficientMemory", "SufficientMemory"),
        message: format!("{} of {} MiB are available", available >> 20, all >> 20),
    };
    [hot, low_battery, metered, memory]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::state::Object;

    /// A machine with 1 GiB, of which nearly all is available.
    fn well() -> Usage {
        Usage {
            memory_available_bytes: 1 << 30,
            ..Usage::default()
        }
    }

    /// What changes, second by second, of a node that says these things.
    fn told(said: &[(u64, Usage)]) -> Vec<String> {
        let mut status = Value::Null;
        let mut told = Vec::new();
        for (second, usage) in said {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(*second);
            let key = objects::node_key("phone");
            let object = Object::new(key, json!({ "status": status }), 1);
            let now = Timestamp::try_from(at).unwrap();
            for change in changes(&NodeRecord::of(&object), usage, now) {
                change.write(&mut status, at);
                told.push(format!("{second}: {}={}", change.kind, change.holds));
            }
        }
        told
    }

    #[test]
    fn nothing_is_wrong_with_what_is_not_told() {
        assert_eq!(told(&[(0, Usage::default()), (100, well())]), [""; 0]);
        let charging_unknown = Usage {
            battery_percent: Some(3),
            ..well()
        };
        assert_eq!(told(&[(0, charging_unknown)]), [""; 0]);
    }

    #[test]
    fn each_begins_and_ends_at_thresholds_of_its_own() {
        let heat = |degrees| Usage {
            temperature_celsius: Some(degrees),
            ..well()
        };
        let battery = |percent, charging| Usage {
            battery_percent: Some(percent),
            battery_charging: Some(charging),
            ..well()
        };
        let memory = |available: u64, all: u64| Usage {
            memory_available_bytes: available << 20,
            memory_used_bytes: (all - available) << 20,
            ..Usage::default()
        };
        let says = |is_short, available| Usage {
            memory_pressure: Some(is_short),
            ..memory(available, 1024)
        };
        let metered = |is| Usage {
            metered: is,
            ..well()
        };
        // What is said, and whether the condition holds then.
        let cases = [
            (
                "Hot",
                vec![
                    (heat(74.9), false),
                    (heat(75.0), true),
                    (heat(65.0), true),
                    (heat(64.9), false),
                ],
            ),
            ("Hot", vec![(heat(90.0), true), (well(), false)]),
            (
                "LowBattery",
                vec![
                    (battery(21, false), false),
                    (battery(20, false), true),
                    (battery(29, false), true),
                    (battery(5, true), false),
                    (battery(5, false), true),
                    (battery(30, false), false),
                ],
            ),
            (
                "Metered",
                vec![
                    (metered(None), false),
                    (metered(Some(true)), true),
                    (metered(Some(false)), false),
                ],
            ),
            (
                "MemoryPressure",
                vec![
                    (memory(52, 1024), false),
                    (memory(51, 1024), true),
                    (memory(101, 1024), true),
                    (memory(103, 1024), false),
                ],
            ),
            // What the machine says itself counts.
            (
                "MemoryPressure",
                vec![(says(true, 900), true), (says(false, 10), false)],
            ),
            // Of much memory, a twentieth is plenty.
            (
                "MemoryPressure",
                vec![
                    (memory(300, 64 << 10), false),
                    (memory(255, 64 << 10), true),
                    (memory(512, 64 << 10), false),
                ],
            ),
        ];
        for (kind, said) in cases {
            let mut held = false;
            let mut expected = Vec::new();
            for (index, (_, holds)) in said.iter().enumerate() {
                if *holds != held {
                    expected.push(format!("{}: {kind}={holds}", index * 60));
                }
                held = *holds;
            }
            let times = said.into_iter().enumerate();
            let said: Vec<_> = times
                .map(|(index, (usage, _))| (index as u64 * 60, usage))
                .collect();
            assert_eq!(told(&said), expected);
        }
    }

    #[test]
    fn a_machine_on_a_threshold_is_written_once_a_minute() {
        let said: Vec<_> = (0..40)
            .map(|turn| {
                let heat = if turn % 2 == 0 { 80.0 } else { 60.0 };
                let usage = Usage {
                    temperature_celsius: Some(heat),
                    ..well()
                };
                (turn * 15, usage)
            })
            .collect();
        let expected = [
            "0: Hot=true",
            "75: Hot=false",
            "150: Hot=true",
            "225: Hot=false",
        ];
        assert_eq!(told(&said)[..4], expected);
    }

    #[test]
    fn taints_are_of_adverse_conditions_only() {
        let taints: Vec<_> = taints(["Ready", "Hot", "MemoryPressure"].into_iter()).collect();
        let told: Vec<_> = taints
            .iter()
            .map(|taint| (&*taint.key, &*taint.effect))
            .collect();
        assert_eq!(
            told,
            [
                ("hive.dev/hot", "PreferNoSchedule"),
                (MEMORY_PRESSURE, "NoSchedule")
            ]
        );
        assert!(!is_adverse("Ready") && is_adverse("Metered"));
    }
}
