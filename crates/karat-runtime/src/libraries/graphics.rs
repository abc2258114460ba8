//! Which GPUs there are, by what the NVIDIA driver says.

use std::{fs, path::Path, process::Command};

use serde::Serialize;

/// The GPUs of a machine and their driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Graphics {
    /// The driver's version.
    pub driver: Option<String>,
    /// The product name of each GPU, in the driver's order.
    pub gpus: Vec<String>,
}

/// Asks the driver's own program, else reads what its kernel module tells; empty where there is no driver.
#[must_use]
pub fn graphics() -> Graphics {
    by_program().unwrap_or_else(|| by_files(Path::new("/proc/driver/nvidia")))
}

fn by_program() -> Option<Graphics> {
    let output = Command::new("nvidia-smi")
        .args(["--query-gpu=driver_version,name", "--format=csv,noheader"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(parse(&String::from_utf8_lossy(&output.stdout)))
}

/// Reads lines such as `580.65.06, NVIDIA H200`.
fn parse(lines: &str) -> Graphics {
    let rows: Vec<(&str, &str)> = lines.lines().filter_map(|line| line.split_once(", ")).collect();
    Graphics {
        driver: rows.first().map(|(driver, _)| (*driver).to_owned()),
        gpus: rows.into_iter().map(|(_, name)| name.trim().to_owned()).collect(),
    }
}

fn by_files(folder: &Path) -> Graphics {
    let driver = fs::read_to_string(folder.join("version")).ok().and_then(|text| {
        let version =
            |word: &&str| word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        text.split_whitespace().find(version).map(str::to_owned)
    });
    let Ok(entries) = fs::read_dir(folder.join("gpus")) else { return Graphics { driver, gpus: Vec::new() } };
    let mut folders: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.sort();
    let model =
        |text: &str| text.lines().find_map(|line| line.strip_prefix("Model:")).map(|model| model.trim().to_owned());
    let gpus = folders.iter().filter_map(|gpu| model(&fs::read_to_string(gpu.join("information")).ok()?)).collect();
    Graphics { driver, gpus }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_program_is_understood() {
        let found = parse("580.65.06, NVIDIA H200\n580.65.06, NVIDIA H200\n");
        assert_eq!(found.driver.as_deref(), Some("580.65.06"));
        assert_eq!(found.gpus, ["NVIDIA H200", "NVIDIA H200"]);
        assert_eq!(parse("No devices were found\n"), Graphics::default());
    }

    #[test]
    fn the_kernel_modules_files_are_understood() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(by_files(folder.path()), Graphics::default());
        let gpu = folder.path().join("gpus/0000:3b:00.0");
        fs::create_dir_all(&gpu).unwrap();
        fs::write(gpu.join("information"), "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 170\n").unwrap();
        let version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n";
        fs::write(folder.path().join("version"), version).unwrap();
        let found = by_files(folder.path());
        assert_eq!(found.driver.as_deref(), Some("580.65.06"));
        assert_eq!(found.gpus, ["NVIDIA H100 80GB HBM3"]);
    }
}
