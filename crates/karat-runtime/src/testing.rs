//! What tests of a whole process have in common: they run in one of their own, whose memory and variables nobody else changes.

use std::{env, ffi::OsStr, fs, process::Command};

/// Runs an ignored test of this program alone in a process of its own, with a variable set to `value` by which the test
/// knows that it is there, and without `unset`. Panics with what it printed unless it passes.
pub(crate) fn run_alone(test: &str, variable: &str, value: impl AsRef<OsStr>, unset: &[&str]) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored"]).env(variable, value);
    for name in unset {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}

/// The bytes of this process that are in memory, by Linux.
pub(crate) fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
