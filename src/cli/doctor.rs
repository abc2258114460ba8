//! `karat doctor`: what this machine has for running graphs, and what is missing.

use std::{fmt::Write as _, path::PathBuf};

use clap::Args;
use karat_runtime::{
    ProviderKind, RuntimeError,
    libraries::{Graphics, Places, Survey, graphics},
    ort::Library,
};
use serde::Serialize;

use super::{
    CommandError,
    style::{self, say, say_json},
};
use crate::telemetry::Build;

/// Flags of `karat doctor`.
#[derive(Debug, Clone, Args)]
pub(super) struct DoctorArguments {
    /// The ONNX Runtime library; by default the one that "karat serve" would take.
    #[arg(long, env = "KARAT_ONNXRUNTIME", value_name = "FILE")]
    onnxruntime: Option<PathBuf>,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    /// Fail when this provider can't start.
    #[arg(long, value_name = "PROVIDER", value_parser = provider)]
    require: Option<ProviderKind>,
}

fn provider(name: &str) -> Result<ProviderKind, String> {
    let known = ProviderKind::ALL.map(ProviderKind::as_str).join(", ");
    ProviderKind::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| format!("write one of: {known}"))
}

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Diagnosis {
    karat: &'static str,
    onnxruntime: OnnxRuntime,
    graphics: Graphics,
    #[serde(flatten)]
    survey: Survey,
    providers: Vec<Trial>,
}

/// The runtime that graphs run on.
#[derive(Debug, Serialize)]
struct OnnxRuntime {
    path: Option<PathBuf>,
    /// What it says of its own build.
    build: Option<&'static str>,
    problem: Option<String>,
}

/// Whether a provider starts.
#[derive(Debug, Serialize)]
struct Trial {
    provider: ProviderKind,
    starts: bool,
    /// Why not.
    reason: Option<String>,
    /// What to do about it.
    advice: Option<String>,
    /// What it can't start without and what isn't there.
    missing: Vec<String>,
}

pub(super) fn doctor(arguments: &DoctorArguments) -> Result<(), CommandError> {
    let diagnosis = diagnose(arguments);
    if arguments.json {
        say_json(&diagnosis)?;
    } else {
        say(diagnosis.to_text().trim_end())?;
    }
    match arguments.require {
        Some(kind) if !diagnosis.starts(kind) => {
            Err(format!("the provider {kind} can't start; install what is missing above, and run this again").into())
        }
        _ => Ok(()),
    }
}

fn diagnose(arguments: &DoctorArguments) -> Diagnosis {
    let loaded = Library::load(arguments.onnxruntime.as_deref());
    let survey = Survey::take(&Places::of_this_machine(loaded.as_ref().ok().map(Library::path)));
    let trials = ProviderKind::ALL.map(|kind| {
        let tried = match &loaded {
            Ok(library) => library.try_provider(kind),
            Err(_) => Err(RuntimeError::NoProvider),
        };
        Trial::new(kind, tried, &survey)
    });
    let onnxruntime = match &loaded {
        Ok(library) => {
            OnnxRuntime { path: Some(library.path().to_owned()), build: Some(library.build_info()), problem: None }
        }
        Err(error) => OnnxRuntime { path: None, build: None, problem: Some(error.to_string()) },
    };
    Diagnosis {
        karat: Build::CURRENT.version,
        onnxruntime,
        graphics: graphics(),
        survey,
        providers: trials.into_iter().collect(),
    }
}

impl Trial {
    fn new(provider: ProviderKind, tried: Result<(), RuntimeError>, survey: &Survey) -> Self {
        let (reason, advice) = match tried {
            Ok(()) => (None, None),
            Err(RuntimeError::Provider { reason, advice, .. }) => (Some(reason), Some(advice)),
            Err(RuntimeError::NoProvider) => (Some("ONNX Runtime can't be loaded".to_owned()), None),
            Err(error) => (Some(error.to_string()), None),
        };
        let missing = survey.missing(provider).map(|finding| finding.name.clone()).collect();
        Self { provider, starts: reason.is_none(), reason, advice, missing }
    }
}

impl Diagnosis {
    fn starts(&self, kind: ProviderKind) -> bool {
        self.providers.iter().any(|trial| trial.provider == kind && trial.starts)
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "{}", style::heading(format_args!("karat {}", self.karat)))?;
        match (&self.onnxruntime.path, &self.onnxruntime.problem) {
            (Some(path), _) => {
                writeln!(text, "ONNX Runtime: {}", path.display())?;
                writeln!(text, "  {}", self.onnxruntime.build.unwrap_or_default())?;
            }
            (None, problem) => writeln!(text, "ONNX Runtime: {}", problem.as_deref().unwrap_or("not found"))?,
        }
        let driver =
            self.graphics.driver.as_deref().map_or_else(|| "none".to_owned(), |driver| format!("NVIDIA {driver}"));
        writeln!(text, "GPU driver: {driver}")?;
        for (number, gpu) in self.graphics.gpus.iter().enumerate() {
            writeln!(text, "GPU {number}: {gpu}")?;
        }

        writeln!(text, "\n{}", style::heading("Libraries"))?;
        for finding in &self.survey.libraries {
            match &finding.found {
                Some(found) => writeln!(text, "  {:<22} {:<12} {}", finding.name, found.version, found.path.display())?,
                None if finding.needed_by.is_empty() => {
                    writeln!(text, "  {:<22} not found; few graphs need it", finding.name)?;
                }
                None => writeln!(text, "  {:<22} not found", finding.name)?,
            }
            for other in &finding.unfit {
                writeln!(text, "  {:<22} {:<12} {} (can't be used)", "", other.version, other.path.display())?;
            }
        }

        writeln!(text, "\n{}", style::heading("Providers"))?;
        for trial in &self.providers {
            let Some(reason) = &trial.reason else {
                writeln!(text, "  {:<9} {}", trial.provider.as_str(), style::good("starts"))?;
                continue;
            };
            writeln!(text, "  {:<9} {} {reason}", trial.provider.as_str(), style::missing("can't start:"))?;
            if let Some(advice) = &trial.advice {
                writeln!(text, "            {advice}")?;
            }
            if !trial.missing.is_empty() {
                writeln!(text, "            not found: {}", trial.missing.join(", "))?;
            }
        }
        Ok(())
    }
}
