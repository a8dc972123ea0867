//! How long requests take, counted in buckets that every node has alike: so those of many nodes can
//! be added up.

/// Upper bounds of the buckets, in microseconds; what took longer is in one more. From an answer out
/// of memory to the longest that a function may take, no step wider than threefold.
pub const BOUNDS_MICROS: [u64; 18] = [
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

/// Says which bounds counts were made with, wherever these may be others.
pub const LAYOUT: u32 = 1;

/// Requests by how long they took.
pub type Buckets = [u64; BOUNDS_MICROS.len() + 1];

/// The bucket of what took so long.
pub fn bucket(micros: u64) -> usize {
    BOUNDS_MICROS.partition_point(|bound| *bound < micros)
}

/// How long the fastest `q` (of 1) of these took at most, in microseconds: within its bucket as if
/// evenly spread, as Prometheus' `histogram_quantile`. Beyond the last bound it is that bound.
/// `None` where nothing was counted.
pub fn quantile(counts: &Buckets, q: f64) -> Option<f64> {
    let total: f64 = counts.iter().map(|count| *count as f64).sum();
    if total == 0.0 {
        return None;
    }
    let rank = q.clamp(0.0, 1.0) * total;
    let (mut below, mut lower) = (0.0, 0.0);
    for (count, bound) in counts.iter().zip(BOUNDS_MICROS) {
        let (count, upper) = (*count as f64, bound as f64);
        if count > 0.0 && below + count >= rank {
            return Some(lower + (upper - lower) * ((rank - below) / count).clamp(0.0, 1.0));
        }
        below += count;
        lower = upper;
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        for (micros, expected) in [
            (0, 0),
            (250, 0),
            (251, 1),
            (300_000_000, 17),
            (u64::MAX, 18),
        ] {
            assert_eq!(bucket(micros), expected, "{micros}");
        }
    }

    #[test]
    fn quantiles_are_as_prometheus_has_them() {
        let counts = |pairs: &[(usize, u64)]| {
            let mut counts = Buckets::default();
            pairs
                .iter()
                .for_each(|(bucket, count)| counts[*bucket] = *count);
            counts
        };
        for (pairs, q, expected) in [
            (&[][..], 0.5, None),
            (&[(0, 4)], 0.5, Some(125.0)),
            (&[(2, 100)], 0.99, Some(995.0)),
            (&[(0, 90), (3, 10)], 0.5, Some(250.0 * 50.0 / 90.0)),
            (&[(0, 90), (3, 10)], 0.95, Some(1_750.0)),
            (&[(0, 1), (18, 99)], 0.99, Some(300_000_000.0)),
        ] {
            assert_eq!(quantile(&counts(pairs), q), expected, "{pairs:?} {q}");
        }
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_the_bucket_of_its_request_and_grows(
            mut took in prop::collection::vec(0_u64..400_000_000, 1..60),
            (a, b) in (0.01_f64..=1.0, 0.01_f64..=1.0),
        ) {
            let mut counts = Buckets::default();
            took.iter().for_each(|micros| counts[bucket(*micros)] += 1);
            took.sort_unstable();
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(quantile(&counts, low).unwrap() <= quantile(&counts, high).unwrap());
            let of_rank = took[((a * took.len() as f64).ceil() as usize - 1).min(took.len() - 1)];
            let index = bucket(of_rank);
            let lower = index.checked_sub(1).map_or(0, |below| BOUNDS_MICROS[below]);
            let upper = BOUNDS_MICROS.get(index).map_or(u64::MAX, |bound| *bound);
            let found = quantile(&counts, a).unwrap();
            prop_assert!(lower as f64 <= found && found <= upper as f64, "{found} not in {lower}..={upper}");
        }
    }
}
