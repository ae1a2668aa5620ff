//! What makes the CPU slower than it is: small pages, clocks that rise late, a share of the processors. (Linux.)

use std::path::Path;

use super::finding::Finding;
use crate::machine;

/// Reads a file of the system's.
type Files<'a> = &'a dyn Fn(&Path) -> Option<String>;

pub fn look() -> Vec<Finding> {
    let files = |path: &Path| std::fs::read_to_string(path).ok();
    let processors = machine::threads();
    let all = [huge_pages(&files), governor(&files, processors), quota(&files, processors)];
    let mut found: Vec<Finding> = all.into_iter().flatten().collect();
    if found.is_empty() {
        found.push(Finding::fine("nothing is known that would slow the CPU"));
    }
    found
}

/// Buffers and what products pack lie in huge pages, where the system has them.
fn huge_pages(files: Files) -> Option<Finding> {
    let text = files(Path::new("/sys/kernel/mm/transparent_hugepage/enabled"))?;
    // The choice is the one in brackets: `always [madvise] never`.
    let choice = text.split_once('[')?.1.split_once(']')?.0;
    if choice != "never" {
        return Some(Finding::fine(format!("transparent huge pages: {choice}")));
    }
    let text = "transparent huge pages are off: buffers and packed operands lie in small ones, whose addresses take time";
    let cure = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled";
    Some(Finding::note(text).with_cure(cure))
}

/// Where clocks follow the load, a short call runs at the clock of an idle processor.
fn governor(files: Files, processors: usize) -> Option<Finding> {
    let of = |cpu| {
        files(Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")))
    };
    let all: Vec<String> =
        (0..processors).filter_map(of).map(|name| name.trim().to_string()).collect();
    let slow: Vec<&String> = all.iter().filter(|name| *name != "performance").collect();
    let Some(first) = slow.first() else {
        return (!all.is_empty()).then(|| Finding::fine("the governor of clocks is performance"));
    };
    let text = format!(
        "the governor of clocks is {first} on {} of {} processors: timings vary, and short calls are slow",
        slow.len(),
        all.len()
    );
    Some(Finding::note(text).with_cure("sudo cpupower frequency-set --governor performance"))
}

/// What is beyond a group's share of time waits for the next period.
fn quota(files: Files, processors: usize) -> Option<Finding> {
    let share = share(&files(Path::new("/proc/self/cgroup"))?, files)?;
    (share < processors as f64).then(|| {
        Finding::note(format!(
            "a control group has the time of {share:.2} of {processors} processors: threads beyond that wait, \
             those of its other programs among them (--threads, Device::cpu_with_threads)"
        ))
    })
}

/// How many processors' time the process's control groups have; the least of those that lie in each other.
fn share(groups: &str, files: Files) -> Option<f64> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let mut least: Option<f64> = None;
    for line in groups.lines() {
        // `number:controllers:path`; the second version has no controllers.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let second = controllers.is_empty();
        if !second && !controllers.split(',').any(|name| name == "cpu") {
            continue;
        }
        let root = Path::new("/sys/fs/cgroup").join(controllers);
        let own = root.join(path.trim_start_matches('/'));
        // In a container the path may be that of the host, and only the root be there.
        for folder in own.ancestors().take_while(|folder| folder.starts_with(&root)) {
            let file = |name: &str| files(&folder.join(name));
            let (quota, period) = if second {
                let Some(text) = file("cpu.max") else { continue };
                let mut numbers = text.split_whitespace().map(number);
                (numbers.next().flatten(), numbers.next().flatten())
            } else {
                let of = |name| file(name).as_deref().and_then(number);
                (of("cpu.cfs_quota_us"), of("cpu.cfs_period_us"))
            };
            // `max`, or -1, is no quota.
            if let (Some(quota @ 0.0..), Some(period)) = (quota, period) {
                let share = quota / period;
                least = Some(least.map_or(share, |least| least.min(share)));
            }
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn files<'a>(all: &'a [(&'a str, &'a str)]) -> impl Fn(&Path) -> Option<String> + 'a {
        |path| {
            all.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| text.to_string())
        }
    }

    #[test]
    fn pages_that_are_small_have_a_cure() {
        let of = |text: &str| {
            huge_pages(&files(&[("/sys/kernel/mm/transparent_hugepage/enabled", text)]))
        };
        let never = of("always madvise [never]\n").unwrap();
        assert!(never.level == Level::Note && never.cure.is_some());
        assert_eq!(of("always [madvise] never\n").unwrap().level, Level::Fine);
        assert_eq!(of("[always] madvise never\n").unwrap().level, Level::Fine);
        assert_eq!(huge_pages(&files(&[])), None);
    }

    #[test]
    fn governors_are_those_of_all_processors() {
        let name = |cpu| format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
        let of = |governors: [&str; 2]| {
            let names = [name(0), name(1)];
            let all = [(names[0].as_str(), governors[0]), (names[1].as_str(), governors[1])];
            governor(&files(&all), 2).unwrap()
        };
        assert_eq!(of(["performance\n", "performance\n"]).level, Level::Fine);
        let found = of(["performance\n", "powersave\n"]);
        assert_eq!(found.level, Level::Note);
        assert!(found.text.contains("powersave on 1 of 2"), "{}", found.text);
        assert_eq!(governor(&files(&[]), 2), None);
    }

    #[test]
    fn the_least_quota_of_all_groups_counts() {
        let second = [
            ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("/sys/fs/cgroup/cpu.max", "400000 100000\n"),
        ];
        assert_eq!(share("0::/a/b\n", &files(&second)), Some(1.5));
        assert_eq!(share("0::/a/b\n", &files(&second[..1])), None);
        // A path of the host's, of which only the root is there.
        assert_eq!(share("0::/host/docker\n", &files(&second)), Some(4.0));
        let first = [
            ("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "50000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        let groups = "5:cpuset:/\n4:cpu,cpuacct:/job\n0::/\n";
        assert_eq!(share(groups, &files(&first)), Some(0.5));
        assert_eq!(share("4:cpu,cpuacct:/\n", &files(&first)), None);

        let proc = [("/proc/self/cgroup", "0::/\n"), second[2]];
        assert_eq!(quota(&files(&proc), 8).unwrap().level, Level::Note);
        assert_eq!(quota(&files(&proc), 4), None);
    }
}
