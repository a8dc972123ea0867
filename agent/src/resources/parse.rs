//! What the kernel's text files say. Pure; a line that isn't there gives nothing.

/// Ticks of all processors together: busy, and in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTicks {
    pub busy: u64,
    pub all: u64,
}

/// The first line of `/proc/stat`: user nice system idle iowait irq softirq steal; what follows
/// are guests' ticks, which are in user already.
pub fn cpu_ticks(stat: &str) -> Option<CpuTicks> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .map(|field| field.parse().ok())
        .collect::<Option<_>>()?;
    let all = ticks
        .iter()
        .fold(0_u64, |all, ticks| all.saturating_add(*ticks));
    let waiting = ticks.get(4).copied().unwrap_or_default();
    let idle = ticks.get(3)?.saturating_add(waiting);
    Some(CpuTicks {
        busy: all.saturating_sub(idle),
        all,
    })
}

/// Thousandths of a core that were busy between two looks.
pub fn busy_millis(before: CpuTicks, after: CpuTicks, cores: u32) -> u32 {
    let all = after.all.saturating_sub(before.all);
    let busy = after.busy.saturating_sub(before.busy).min(all);
    if all == 0 {
        return 0;
    }
    (busy as f64 / all as f64 * f64::from(cores) * 1000.0).round() as u32
}

/// A value in kB of `/proc/meminfo` or `/proc/self/status`, in bytes.
pub fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

/// Bytes received and sent over all interfaces of `/proc/net/dev` but the loopback.
pub fn network_totals(dev: &str) -> (u64, u64) {
    let interface = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let mut counters = counters.split_whitespace().map(str::parse::<u64>);
        let received = counters.next()?.ok()?;
        let sent = counters.nth(7)?.ok()?;
        (name.trim() != "lo").then_some((received, sent))
    };
    dev.lines()
        .filter_map(interface)
        .fold((0_u64, 0_u64), |(received, sent), (r, s)| {
            (received.saturating_add(r), sent.saturating_add(s))
        })
}

/// The interface of the route to everywhere in `/proc/net/route`, of several the one that the kernel prefers.
pub fn default_interface(route: &str) -> Option<&str> {
    let default = |line: &'_ str| -> Option<u32> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_everywhere = *fields.get(1)? == "00000000" && *fields.get(7)? == "00000000";
        is_everywhere.then(|| fields[6].parse().ok()).flatten()
    };
    let routes = route
        .lines()
        .filter_map(|line| Some((default(line)?, line)));
    let (_, line) = routes.min_by_key(|(metric, _)| *metric)?;
    line.split_whitespace().next()
}

/// Whether an interface is one of a mobile network: `rmnet` and `ccmni` are those of phones, `v4-` is put
/// before where the network is of IPv6 only, `wwan` are modems in laptops.
pub fn is_mobile(interface: &str) -> bool {
    let name = interface.strip_prefix("v4-").unwrap_or(interface);
    ["rmnet", "ccmni", "wwan"]
        .iter()
        .any(|kind| name.starts_with(kind))
}

/// A limit in a file of a control group: `max` is none.
pub fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of a name in a control group's `memory.stat`.
pub fn counter(stat: &str, name: &str) -> Option<u64> {
    let line = stat
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// Of a file of pressure stall information: percent of the last ten seconds in which something waited.
pub fn stalled(pressure: &str) -> Option<f32> {
    let some = pressure
        .lines()
        .find_map(|line| line.strip_prefix("some "))?;
    let percent = some
        .split_whitespace()
        .find_map(|field| field.strip_prefix("avg10="))?;
    percent
        .parse()
        .ok()
        .filter(|percent| (0.0..=100.0).contains(percent))
}

/// Where `/proc/self/cgroup` says that a process is: the path in the hierarchy whose controllers satisfy `is_it`.
pub fn group(cgroup: &str, is_it: impl Fn(&str) -> bool) -> Option<&str> {
    cgroup.lines().find_map(|line| {
        let (_number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        is_it(controllers).then_some(path)
    })
}

/// Thousandths of a degree, where a sensor shows something that can be true. Sensors that are
/// switched off show 0, -273 or 127.
pub fn degrees(text: &str) -> Option<f32> {
    let thousandths: i32 = text.trim().parse().ok()?;
    (1_000..126_000)
        .contains(&thousandths)
        .then_some(thousandths as f32 / 1000.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn processors() {
        let before = cpu_ticks("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3\n").unwrap();
        assert_eq!(
            before,
            CpuTicks {
                busy: 150,
                all: 1000
            }
        );
        let after = cpu_ticks("cpu  150 0 100 850 100 0 0 0 7 7\n").unwrap();
        assert_eq!(busy_millis(before, after, 4), 2000);
        assert_eq!(busy_millis(after, before, 4), 0);
        assert_eq!(busy_millis(after, after, 4), 0);
        for nothing in ["", "cpu ", "cpu  1 2 x 4", "intr 5"] {
            assert_eq!(cpu_ticks(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn memory() {
        let meminfo = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\n";
        assert_eq!(kilobytes(meminfo, "MemTotal"), Some(16 << 20));
        assert_eq!(kilobytes(meminfo, "MemAvailable"), Some(8 << 20));
        assert_eq!(kilobytes(meminfo, "Mem"), None);
        assert_eq!(kilobytes("VmRSS:\t  12 kB", "VmRSS"), Some(12 << 10));
    }

    #[test]
    fn network() {
        let dev = "Inter-|   Receive                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes packets\n    \
            lo: 999 1 0 0 0 0 0 0 999 1 0 0 0 0 0 0\n  \
            eth0: 100 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n \
            wlan0:5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n";
        assert_eq!(network_totals(dev), (105, 27));
        assert_eq!(network_totals(""), (0, 0));
    }

    #[test]
    fn the_way_out() {
        let head =
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let to = |interface: &str, destination: &str, metric: u32, mask: &str| {
            format!("{interface}\t{destination}\t0101A8C0\t0003\t0\t0\t{metric}\t{mask}\t0\t0\t0\n")
        };
        let everywhere = |interface, metric| to(interface, "00000000", metric, "00000000");
        let local = to("wlan0", "0001A8C0", 0, "00FFFFFF");
        let two = [
            head,
            &everywhere("rmnet_data0", 700),
            &everywhere("wlan0", 600),
            &local,
        ]
        .concat();
        assert_eq!(default_interface(&two), Some("wlan0"));
        assert_eq!(default_interface(&[head, &local].concat()), None);
        for nothing in ["", head, "wlan0 00000000 x"] {
            assert_eq!(default_interface(nothing), None, "{nothing:?}");
        }
        for (interface, mobile) in [
            ("rmnet_data0", true),
            ("v4-rmnet_data0", true),
            ("ccmni1", true),
            ("wwan0", true),
            ("wlan0", false),
            ("eth0", false),
            ("ppp0", false),
        ] {
            assert_eq!(is_mobile(interface), mobile, "{interface}");
        }
    }

    #[test]
    fn sensors_that_lie_are_left_out() {
        assert_eq!(degrees("48500\n"), Some(48.5));
        for lie in ["0", "-273150", "127000", "hot", ""] {
            assert_eq!(degrees(lie), None, "{lie}");
        }
    }

    #[test]
    fn control_groups() {
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("536870912\n"), Some(512 << 20));
        let stat = "anon 5\ninactive_file 7\ntotal_inactive_file 9\n";
        assert_eq!(counter(stat, "inactive_file"), Some(7));
        assert_eq!(counter(stat, "inactive"), None);
        let both = "9:name=systemd:/a\n4:cpu,memory:/b/c\n0::/d\n";
        assert_eq!(group(both, str::is_empty), Some("/d"));
        assert_eq!(group(both, |names| names.contains("memory")), Some("/b/c"));
        assert_eq!(group("nonsense", str::is_empty), None);
    }

    #[test]
    fn waiting_for_memory() {
        let told = "some avg10=12.34 avg60=1.00 avg300=0.00 total=99\n\
                    full avg10=3.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(stalled(told), Some(12.34));
        for nothing in [
            "",
            "full avg10=1.00",
            "some total=1",
            "some avg10=x",
            "some avg10=-1",
        ] {
            assert_eq!(stalled(nothing), None, "{nothing:?}");
        }
    }
}
