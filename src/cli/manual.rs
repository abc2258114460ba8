//! `karat completions` and `karat manual`: what a shell and `man` know of karat, from the flags as they are parsed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Command};
use clap_complete::Shell;

use super::{CommandError, style::say};

/// Flags of `karat completions`.
#[derive(Debug, Clone, Args)]
pub(super) struct CompletionsArguments {
    /// The shell. For bash: karat completions bash > ~/.local/share/bash-completion/completions/karat
    shell: Shell,
}

/// Flags of `karat manual`.
#[derive(Debug, Clone, Args)]
pub(super) struct ManualArguments {
    /// The folder, such as ~/.local/share/man/man1; it is made if it isn't there.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

pub(super) fn completions(arguments: &CompletionsArguments, command: &mut Command) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "karat", &mut script);
    say(String::from_utf8(script)?.trim_end())
}

pub(super) fn manual(arguments: &ManualArguments, command: Command) -> Result<(), CommandError> {
    let folder = &arguments.folder;
    write(folder, command).map_err(|error| format!("{} can't be written to: {error}", folder.display()).into())
}

fn write(folder: &Path, command: Command) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}
