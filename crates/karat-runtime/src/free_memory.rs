//! How much memory this process may still use, so that what can't fit is refused before it is read.

use std::{fs, path::Path};

/// Where Linux tells of groups of processes.
const GROUPS: &str = "/sys/fs/cgroup";

/// The bytes that this process may still use, by what the machine has free and by the limits of its groups, pages of files
/// not counted as used. `None` where the system doesn't tell.
#[must_use]
pub fn free_memory() -> Option<u64> {
    let machine = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")? << 10;
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups(&own).filter_map(|group| free_in(&Path::new(GROUPS).join(group)));
    Some(limits.fold(machine, u64::min))
}

/// The paths of the process's group and of those around it, innermost first, by `/proc/self/cgroup` (version 2).
fn groups(own: &str) -> impl Iterator<Item = &Path> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Path::new(path).ancestors()
}

/// What is left of a group's limit; `None` where it has none.
fn free_in(group: &Path) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let used = number("memory.current")?;
    let files = fs::read_to_string(group.join("memory.stat")).ok();
    let files = files.and_then(|stat| field(&stat, "inactive_file")).unwrap_or(0);
    Some(number("memory.max")?.saturating_sub(used.saturating_sub(files)))
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let words = text.lines().map(str::split_whitespace);
    words.into_iter().find_map(|mut words| if words.next() == Some(name) { words.next()?.parse().ok() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_counts_and_cached_files_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("memory.current", "700\n");
        write("memory.stat", "anon 400\ninactive_file 300\nactive_file 0\n");
        write("memory.max", "max\n");
        assert_eq!(free_in(folder.path()), None);
        write("memory.max", "1000\n");
        assert_eq!(free_in(folder.path()), Some(600));
        write("memory.max", "100\n");
        assert_eq!(free_in(folder.path()), Some(0));
        assert_eq!(free_in(&folder.path().join("none")), None);
    }

    #[test]
    fn groups_are_asked_up_to_the_root() {
        let paths: Vec<&str> = groups("1:cpu:/x\n0::/a/b\n").map(|path| path.to_str().unwrap()).collect();
        assert_eq!(paths, ["a/b", "a", ""]);
    }
}
