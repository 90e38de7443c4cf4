//! The machine that a run was on.

use std::fs;

/// Processor, cores, kernel and day, and how busy it is, in one line.
pub(crate) fn describe() -> String {
    let cores = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
    let model = cores.lines().find(|line| line.starts_with("model name")).and_then(value);
    let virtualised = cores.lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{}, {} cores{}, Linux {}, {today}, load {} before the run",
        model.unwrap_or_else(|| "unknown processor".to_owned()),
        std::thread::available_parallelism().map_or(1, usize::from),
        if virtualised { " of a virtual machine" } else { "" },
        kernel.trim(),
        load.split_once(' ').map_or("unknown", |(load, _)| load)
    )
}
