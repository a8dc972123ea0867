//! The times that a schedule's expression means.
//!
//! An expression is cron's, five fields, in a time zone. Where clocks are put forward or back it is
//! as in Vixie's cron: one that says `*` for hours or minutes goes by the time that passes; any other
//! means times of day, each of which comes once, an hour late if the clock jumps over it.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Far longer than any expression that means something.
const MAX_EXPRESSION_BYTES: usize = 256;

/// In days: the time to the next 29th of February.
const FOUR_YEARS: i64 = 1461;

/// Why an expression means no times.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("{0}")]
    Expression(String),
    #[error(
        "{0:?} is not a time zone; they are named as in \"UTC\" or \"Europe/Berlin\" (IANA's database)"
    )]
    TimeZone(String),
    #[error("it names no time: there is no such day")]
    Never,
}

impl ScheduleError {
    /// The field of [`Schedule`](super::Schedule) that is wrong.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::TimeZone(_) => "timeZone",
            Self::Expression(_) | Self::Never => "schedule",
        }
    }
}

/// The times that an expression means.
#[derive(Clone, Debug)]
pub struct Times {
    /// Read as if every zone were UTC: its times are times of day, whatever clocks do.
    table: cronexpr::Crontab,
    /// It goes by the time that passes instead: each time of day whenever a clock shows it.
    by_instants: bool,
    zone: TimeZone,
}

impl Times {
    pub fn parse(expression: &str, zone_name: &str) -> Result<Self, ScheduleError> {
        let fields = fields(expression)?;
        // "Local" would be another time on each controller; and a name goes into a text that is parsed.
        let is_name = |c: char| c.is_ascii_alphanumeric() || "/_+-".contains(c);
        let zone = Some(zone_name)
            .filter(|name| name.chars().all(is_name) && !name.eq_ignore_ascii_case("local"))
            .and_then(|name| TimeZone::get(name).ok())
            .ok_or_else(|| ScheduleError::TimeZone(zone_name.to_owned()))?;
        // Never in a zone: where a clock goes back within an hour, the library looks at that hour for ever.
        let table = cronexpr::parse_crontab(&format!("{} UTC", fields.join(" ")))
            .map_err(|error| ScheduleError::Expression(last_line(&error.to_string())))?;
        let times = Self {
            table,
            by_instants: fields[..2].iter().any(|field| field.starts_with('*')),
            zone,
        };
        match times.next_after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(times),
            None => Err(ScheduleError::Never),
        }
    }

    /// The first time after `at`. None when there is none within four years.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        if self.by_instants {
            return self.next_instant(at);
        }
        let mut of_day = self.zone.to_datetime(at);
        loop {
            of_day = self.next_of_day(of_day)?;
            // What a clock shows twice is its first time, what it jumps over comes an hour later.
            let instant = self.zone.to_timestamp(of_day).ok()?;
            if instant > at {
                return Some(instant);
            }
        }
    }

    /// From one change of the clocks to the next, between which they go as UTC does.
    fn next_instant(&self, at: Timestamp) -> Option<Timestamp> {
        let end = at + SignedDuration::from_hours(24 * FOUR_YEARS);
        let mut from = at;
        loop {
            let offset = self.zone.to_offset(from);
            let next = self.next_of_day(offset.to_datetime(from))?;
            let next = offset.to_timestamp(next).ok()?;
            let change = self.zone.following(from).next();
            match change.map(|change| change.timestamp()) {
                Some(change) if change <= next => from = change,
                _ => return Some(next),
            }
            if from > end {
                return None;
            }
            // The minute that begins with the change is one to look at.
            if self.matches(from) {
                return Some(from);
            }
        }
    }

    fn matches(&self, at: Timestamp) -> bool {
        let of_day = self.zone.to_datetime(at);
        let as_utc = TimeZone::UTC.to_timestamp(of_day).ok();
        of_day.second() == 0
            && as_utc.is_some_and(|at| {
                self.table
                    .matches(cronexpr::MakeTimestamp(at))
                    .unwrap_or(false)
            })
    }

    /// The first time of day after this one, as if no clock ever changed.
    fn next_of_day(&self, of_day: DateTime) -> Option<DateTime> {
        let as_utc = TimeZone::UTC.to_timestamp(of_day).ok()?;
        let next = self.table.find_next(cronexpr::MakeTimestamp(as_utc)).ok()?;
        Some(next.datetime())
    }

    /// The last time after `after`, up to `until`.
    pub fn last_within(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        std::iter::successors(self.next_after(after), |at| self.next_after(*at))
            .take_while(|at| *at <= until)
            .last()
    }
}

/// The five fields of an expression, of which nothing but numbers, names, `*`, `,`, `-` and `/` is left.
fn fields(expression: &str) -> Result<Vec<String>, ScheduleError> {
    let wrong = |why: &str| ScheduleError::Expression(why.to_owned());
    if expression.len() > MAX_EXPRESSION_BYTES {
        return Err(wrong("it is longer than 256 characters"));
    }
    let expression = match expression.trim() {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        other if other.starts_with('@') => {
            return Err(wrong(
                "there are @hourly, @daily, @weekly, @monthly and @yearly",
            ));
        }
        other if other.to_ascii_uppercase().contains("TZ=") => {
            return Err(wrong("the time zone goes into timeZone"));
        }
        other => other,
    };
    let fields: Vec<String> = expression
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    if fields.len() != 5 {
        return Err(ScheduleError::Expression(format!(
            "it has {} fields of five: minute, hour, day of month, month, day of week",
            fields.len()
        )));
    }
    for (index, field) in fields.iter().enumerate() {
        for part in field.split([',', '-', '/']) {
            let is_number = !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
            // Months and days of the week have names.
            let is_name =
                index >= 3 && part.len() == 3 && part.bytes().all(|c| c.is_ascii_alphabetic());
            if !(part == "*" || is_number || is_name) {
                return Err(ScheduleError::Expression(format!(
                    "{part:?} in its field {} is no number{}, nor \"*\"",
                    index + 1,
                    if index >= 3 {
                        " or name such as MON or JAN"
                    } else {
                        ""
                    }
                )));
            }
        }
    }
    Ok(fields)
}

/// The library draws where the mistake is, over several lines; the last says what it is.
fn last_line(text: &str) -> String {
    let said = text.lines().last().unwrap_or(text);
    said.trim_start_matches([' ', '^']).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn next(expression: &str, zone: &str, at: &str, count: usize) -> Vec<String> {
        let times = Times::parse(expression, zone).unwrap();
        let mut at: Timestamp = at.parse().unwrap();
        (0..count)
            .map(|_| {
                at = times.next_after(at).unwrap();
                at.to_zoned(times.zone.clone())
                    .strftime("%a %Y-%m-%d %H:%M %Z")
                    .to_string()
            })
            .collect()
    }

    #[test]
    fn times_are_those_of_cron() {
        assert_eq!(
            next("*/20 9-10 * * MON-FRI", "UTC", "2026-11-20T10:30:00Z", 3),
            [
                "Fri 2026-11-20 10:40 UTC",
                "Mon 2026-11-23 09:00 UTC",
                "Mon 2026-11-23 09:20 UTC"
            ]
        );
        assert_eq!(
            next("0 3 * * *", "Europe/Berlin", "2026-11-21T01:59:59Z", 2),
            ["Sat 2026-11-21 03:00 CET", "Sun 2026-11-22 03:00 CET"]
        );
        assert_eq!(
            next("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1),
            ["Tue 2028-02-29 00:00 UTC"]
        );
        // Either of both days, as in every cron.
        assert_eq!(
            next("0 0 13 * FRI", "UTC", "2026-11-12T00:00:00Z", 3),
            [
                "Fri 2026-11-13 00:00 UTC",
                "Fri 2026-11-20 00:00 UTC",
                "Fri 2026-11-27 00:00 UTC"
            ]
        );
        assert_eq!(
            next("@monthly", "Asia/Tokyo", "2026-12-15T00:00:00Z", 1),
            ["Fri 2027-01-01 00:00 JST"]
        );
        assert_eq!(
            next("0 12 31 12 7", "UTC", "2026-12-01T00:00:00Z", 2),
            ["Sun 2026-12-06 12:00 UTC", "Sun 2026-12-13 12:00 UTC"]
        );
    }

    #[test]
    fn a_time_of_day_comes_once_a_day_whatever_clocks_do() {
        // Forward from 02:00 to 03:00 on 2026-03-29.
        assert_eq!(
            next("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3),
            [
                "Sat 2026-03-28 02:30 CET",
                "Sun 2026-03-29 03:30 CEST",
                "Mon 2026-03-30 02:30 CEST"
            ]
        );
        // Back from 03:00 to 02:00 on 2026-10-25.
        assert_eq!(
            next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["Sun 2026-10-25 02:30 CEST", "Mon 2026-10-26 02:30 CET"]
        );
        // What goes by the time that passes neither waits an hour nor comes twice at once.
        assert_eq!(
            next("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 4),
            [
                "Sun 2026-10-25 02:30 CEST",
                "Sun 2026-10-25 02:00 CET",
                "Sun 2026-10-25 02:30 CET",
                "Sun 2026-10-25 03:00 CET"
            ]
        );
        assert_eq!(
            next("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", 2),
            ["Sun 2026-03-29 03:00 CEST", "Sun 2026-03-29 03:30 CEST"]
        );
    }

    #[test]
    fn of_what_was_missed_the_last_counts() {
        let times = Times::parse("0 * * * *", "UTC").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let last = |after, until| times.last_within(at(after), at(until));
        assert_eq!(
            last("2026-01-01T00:00:00Z", "2026-01-01T05:30:00Z"),
            Some(at("2026-01-01T05:00:00Z"))
        );
        assert_eq!(last("2026-01-01T05:00:00Z", "2026-01-01T05:59:59Z"), None);
        assert_eq!(
            last("2026-01-01T05:00:00Z", "2026-01-01T06:00:00Z"),
            Some(at("2026-01-01T06:00:00Z"))
        );
    }

    #[test]
    fn what_means_no_times_says_why() {
        let cases = [
            ("0 3 * *", "UTC", "it has 4 fields of five"),
            ("0 3 * * * *", "UTC", "it has 6 fields of five"),
            ("", "UTC", "it has 0 fields of five"),
            ("60 3 * * *", "UTC", "60"),
            ("0 3 * * MOON", "UTC", "\"MOON\" in its field 5"),
            ("0 3 L * *", "UTC", "\"L\" in its field 3"),
            ("H 3 * * *", "UTC", "\"H\" in its field 1"),
            ("@every 5m", "UTC", "@hourly"),
            ("TZ=UTC 0 3 * * *", "UTC", "timeZone"),
            ("0 0 30 2 *", "UTC", "no such day"),
            (
                "0 3 * * *",
                "Europe/Berln",
                "\"Europe/Berln\" is not a time zone",
            ),
            ("0 3 * * *", "local", "is not a time zone"),
            ("0 3 * * *", "UTC 0 0 * * *", "is not a time zone"),
            ("0 3 * * *", "../../etc/passwd", "is not a time zone"),
        ];
        for (expression, zone, why) in cases {
            let error = Times::parse(expression, zone).unwrap_err();
            assert!(
                error.to_string().contains(why),
                "{expression:?} {zone:?}: {error}"
            );
        }
    }

    /// On 5 April 2026 the clocks of Lord Howe went from 02:00 back to 01:30.
    #[test]
    fn half_an_hour_that_comes_twice_is_not_looked_at_for_ever() {
        for (expression, expected) in [
            (
                "* 2 * * *",
                ["2026-04-04T15:30:00Z", "2026-04-04T15:31:00Z"],
            ),
            (
                "*/30 1 * * *",
                ["2026-04-04T14:30:00Z", "2026-04-04T15:00:00Z"],
            ),
        ] {
            let times = Times::parse(expression, "Australia/Lord_Howe").unwrap();
            let mut at: Timestamp = "2026-04-04T14:00:00Z".parse().unwrap();
            for expected in expected {
                at = times.next_after(at).unwrap();
                assert_eq!(at, expected.parse().unwrap(), "{expression}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Around changes of the clocks, against looking at each minute.
        #[test]
        fn a_time_that_goes_by_instants_is_the_first_that_matches(
            minute in prop::sample::select(vec!["*", "*/7", "*/30", "0,59"]),
            hour in prop::sample::select(vec!["*", "*/3"]),
            zone in prop::sample::select(vec![
                "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana",
            ]),
            year in 0i64..8,
            before in 0i64..20_000,
        ) {
            let times = Times::parse(&format!("{minute} {hour} * * *"), zone).unwrap();
            let start = Timestamp::from_second(1_700_000_000 + year * 15_778_800).unwrap();
            let change = times.zone.following(start).next().unwrap().timestamp();
            let mut at = change - SignedDuration::from_secs(before);
            for _ in 0..5 {
                let next = times.next_after(at).unwrap();
                let minutes = (at.as_second() / 60 + 1..).map(|minute| Timestamp::from_second(60 * minute).unwrap());
                let expected = minutes.into_iter().find(|minute| times.matches(*minute)).unwrap();
                prop_assert_eq!(next, expected);
                at = next;
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(expression in "[-0-9*/, @A-Z]{0,40}", zone in ".{0,12}") {
            let _ = Times::parse(&expression, &zone);
        }

        /// In zones that jump by an hour, by half an hour, at midnight; none.
        #[test]
        fn times_only_go_on(
            minute in prop::sample::select(vec!["*", "0", "*/7", "30", "0,59"]),
            hour in prop::sample::select(vec!["*", "0", "2", "*/3", "1-4"]),
            day in prop::sample::select(vec!["*", "1", "29", "31"]),
            zone in prop::sample::select(vec![
                "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana",
            ]),
            start in 1_700_000_000i64..1_900_000_000,
        ) {
            let times = Times::parse(&format!("{minute} {hour} {day} * *"), zone).unwrap();
            let mut at = Timestamp::from_second(start).unwrap();
            for _ in 0..50 {
                let next = times.next_after(at).unwrap();
                prop_assert!(next > at);
                // Asked from anywhere in between the answer is the same.
                let between = Timestamp::from_second((at.as_second() + next.as_second()) / 2).unwrap();
                if between > at && times.by_instants {
                    prop_assert_eq!(times.next_after(between).unwrap(), next);
                }
                at = next;
            }
        }
    }
}
