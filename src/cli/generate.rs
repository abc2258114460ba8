//! `karat generate`: files that follow from the code, written or checked for drift.

use std::{fs, path::PathBuf};

use clap::Args;
use karat_engine::manifest;
use karat_rules::catalogue;

use super::CommandError;
use crate::api;

/// Flags of `karat generate`.
#[derive(Debug, Clone, Args)]
pub(super) struct GenerateArguments {
    /// Fail if a file differs from the code, and write nothing.
    #[arg(long)]
    check: bool,

    /// The project's folder.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    root: PathBuf,
}

pub(super) fn generate(arguments: &GenerateArguments) -> Result<(), CommandError> {
    let mut schema = serde_json::to_string_pretty(&manifest::schema())?;
    schema.push('\n');
    let files = [
        ("openapi/openapi.json", api::openapi_document()),
        ("docs/manifest.md", manifest::reference()),
        ("docs/catalogue.md", catalogue::markdown()),
        ("docs/manifest.schema.json", schema),
    ];
    let mut stale = Vec::new();
    for (name, wanted) in files {
        let path = arguments.root.join(name);
        if fs::read_to_string(&path).is_ok_and(|found| found == wanted) {
            continue;
        }
        stale.push(name);
        if !arguments.check {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&path, wanted)?;
        }
    }
    if arguments.check && !stale.is_empty() {
        return Err(format!("{} differ from the code; run `make generate`", stale.join(", ")).into());
    }
    Ok(())
}
