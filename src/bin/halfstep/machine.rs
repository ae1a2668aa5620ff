//! What this machine says of itself. (Linux; elsewhere little is known.)

use std::collections::BTreeSet;

fn cpuinfo() -> String {
    std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()
}

/// The value of a line `key : value`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}

/// The processor's name.
pub fn processor() -> String {
    let text = cpuinfo();
    let name = value(&text, "model name").filter(|name| !name.is_empty());
    name.unwrap_or(std::env::consts::ARCH).to_string()
}

/// `family 26`; nothing where processors have none.
pub fn family() -> String {
    value(&cpuinfo(), "cpu family").map_or(String::new(), |family| format!("family {family}"))
}

/// Family and model, or what there is of them.
fn model() -> String {
    let text = cpuinfo();
    let number = |key: &str, name: &str| value(&text, key).map(|number| format!("{name} {number}"));
    let known: Vec<String> =
        number("cpu family", "family").into_iter().chain(number("model", "model")).collect();
    if known.is_empty() { "model unknown".into() } else { known.join(" ") }
}

/// Its name, family and model.
pub fn described() -> String {
    format!("{}, {}", processor(), model())
}

/// The clock now, the highest of all processors', and the one they may reach.
pub fn clocks() -> String {
    let text = cpuinfo();
    let now = text.lines().filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "cpu MHz").then(|| value.trim().parse::<f64>().ok())?
    });
    let now = now.fold(0.0, f64::max);
    let most = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq");
    let most = most.ok().and_then(|text| text.trim().parse::<f64>().ok());
    let mega = |mhz: f64| if mhz > 0.0 { format!("{mhz:.0} MHz") } else { "unknown".into() };
    format!("{} now, {} at most", mega(now), mega(1e-3 * most.unwrap_or(0.0)))
}

/// Hardware threads that are online.
pub fn threads() -> usize {
    let listed = cpuinfo().lines().filter(|line| line.starts_with("processor")).count();
    let usable = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    listed.max(usable)
}

/// Those of the flags that the processor has.
pub fn flags(wanted: &[&'static str]) -> Vec<&'static str> {
    let text = cpuinfo();
    let line = value(&text, "flags").or_else(|| value(&text, "Features")).unwrap_or_default();
    let all: BTreeSet<&str> = line.split_whitespace().collect();
    wanted.iter().copied().filter(|flag| all.contains(flag)).collect()
}

/// A line of /proc/meminfo, in bytes.
pub fn memory(key: &str) -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib: f64 = value(&text, key)?.split_whitespace().next()?.parse().ok()?;
    Some(1024.0 * kib)
}
