//! What karat gives a shell and `man`.

use std::{fs, io};

use crate::support::{karat, root};

#[test]
fn shells_and_man_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = karat(&["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && script.contains("calibration-seconds"), "{shell}: {script}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert!(karat(&["manual", pages.to_str().unwrap()]).status().unwrap().success());
    for command in ["serve", "doctor", "inspect"] {
        let page = fs::read_to_string(pages.join(format!("karat-{command}.1"))).unwrap();
        assert!(page.starts_with(".ie") && page.contains("SYNOPSIS"), "{command}: {page}");
    }
    assert!(fs::read_to_string(pages.join("karat.1")).unwrap().contains("karat\\-serve(1)"));
}

#[test]
fn words_are_plain_where_no_terminal_shows_them() {
    let output = karat(&["doctor"]).output().unwrap();
    assert!(!output.stdout.contains(&b'\x1b') && !output.stderr.contains(&b'\x1b'));
    // As a terminal would have it.
    let coloured = karat(&["doctor"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(coloured.stdout.contains(&b'\x1b'));
    let told = karat(&["doctor", "--json"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(serde_json::from_slice::<serde_json::Value>(&told.stdout).unwrap()["providers"].is_array());
    let failed = karat(&["eval", "/nowhere.jsonl", "--model", "m"]).output().unwrap();
    let told = String::from_utf8(failed.stderr).unwrap();
    assert!(told.starts_with("karat: /nowhere.jsonl can't be read") && told.contains("name a file"), "{told}");
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let checkpoint = root().join("tests/checkpoints/openrlhf");
    let checkpoint = checkpoint.to_str().unwrap();
    for command in
        [&["doctor"][..], &["inspect", checkpoint], &["inspect", checkpoint, "--json"], &["completions", "bash"]]
    {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = karat(command).stdout(writer).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && told.is_empty(), "{command:?}: {told}");
    }
}
