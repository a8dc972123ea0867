//! Lengths of time as kubectl shows them: `45s`, `5m12s`, `3h4m`, `3d4h`, `2y10d`.
//!
//! Pure. The precision shrinks as the age grows, so a column stays narrow.

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

/// The text for a length of time; the steps are those of apimachinery's `HumanDuration`.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |big: u64, big_unit: char, small: u64, small_unit: char| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    let (minutes, hours, days) = (seconds / MINUTE, seconds / HOUR, seconds / DAY);
    if seconds < 2 * MINUTE {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, 'm', seconds % MINUTE, 's')
    } else if hours < 3 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, 'h', minutes % 60, 'm')
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        two(days, 'd', hours % 24, 'h')
    } else if days < 2 * 365 {
        format!("{days}d")
    } else if days < 8 * 365 {
        two(seconds / YEAR, 'y', days % 365, 'd')
    } else {
        format!("{}y", seconds / YEAR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_in_kubectl() {
        let table = [
            (0, "0s"),
            (45, "45s"),
            (119, "119s"),
            (120, "2m"),
            (5 * MINUTE + 12, "5m12s"),
            (10 * MINUTE + 5, "10m"),
            (2 * HOUR + 59 * MINUTE, "179m"),
            (3 * HOUR + 4 * MINUTE, "3h4m"),
            (8 * HOUR + 30 * MINUTE, "8h"),
            (47 * HOUR, "47h"),
            (3 * DAY + 4 * HOUR, "3d4h"),
            (2 * DAY, "2d"),
            (30 * DAY, "30d"),
            (2 * YEAR + 10 * DAY, "2y10d"),
            (8 * DAY, "8d"),
            (2 * YEAR, "2y"),
            (8 * YEAR, "8y"),
            (9 * YEAR + DAY, "9y"),
        ];
        for (seconds, expected) in table {
            assert_eq!(human(Duration::from_secs(seconds)), expected);
        }
    }
}
