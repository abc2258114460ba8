//! Where the cache lies, and how the Hub is reached: the environment variables of Python's `huggingface_hub`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// How the Hub is used.
#[derive(Clone)]
pub struct HubSettings {
    /// The folder of the cache: `HF_HUB_CACHE`, or `hub` in `HF_HOME`, or `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// Where the Hub is: `HF_ENDPOINT`, or huggingface.co.
    pub endpoint: String,
    /// Whether only the cache is used: `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// What proves that gated and private models may be read: `HF_TOKEN`, or what `hf auth login` wrote.
    pub token: Option<String>,
}

impl std::fmt::Debug for HubSettings {
    /// Without the token, which belongs in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cache, endpoint, offline, token } = self;
        let token = token.as_ref().map(|_| "…");
        f.debug_struct("HubSettings")
            .field("cache", cache)
            .field("endpoint", endpoint)
            .field("offline", offline)
            .field("token", &token)
            .finish()
    }
}

impl HubSettings {
    /// What the process's environment says.
    #[must_use]
    pub fn from_env() -> Self {
        Self::of(&|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn of(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let user = variable("HOME").map(PathBuf::from).unwrap_or_default();
        let folder = |name: &str| {
            let written = variable(name)?;
            Some(written.strip_prefix("~/").map_or_else(|| PathBuf::from(&written), |rest| user.join(rest)))
        };
        let general = folder("XDG_CACHE_HOME").unwrap_or_else(|| user.join(".cache"));
        let home = folder("HF_HOME").unwrap_or_else(|| general.join("huggingface"));
        let cache = folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE"));
        let is_on = |name: &str| {
            variable(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()))
        };
        let said =
            || variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")).and_then(|token| trimmed(&token));
        let file = folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let stored = || if is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") { None } else { stored(&file) };
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        Self {
            cache: cache.unwrap_or_else(|| home.join("hub")),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
            token: said().or_else(stored),
        }
    }
}

fn stored(file: &Path) -> Option<String> {
    trimmed(&fs::read_to_string(file).ok()?)
}

fn trimmed(token: &str) -> Option<String> {
    // A line break in it would begin another header.
    let token: String = token.chars().filter(|c| !c.is_control()).collect();
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> HubSettings {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        HubSettings::of(&|name| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
    }

    #[test]
    fn the_cache_is_where_python_looks_for_it() {
        let cache = |variables: &[(&str, &str)]| settings(variables).cache;
        assert_eq!(cache(&[("HOME", "/u")]), Path::new("/u/.cache/huggingface/hub"));
        assert_eq!(cache(&[("HOME", "/u"), ("XDG_CACHE_HOME", "/c")]), Path::new("/c/huggingface/hub"));
        assert_eq!(cache(&[("HOME", "/u"), ("HF_HOME", "~/hf")]), Path::new("/u/hf/hub"));
        assert_eq!(cache(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/k")]), Path::new("/k"));
    }

    #[test]
    fn a_token_is_the_variable_s_or_the_file_s_and_never_shown() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "stored\n").unwrap();
        let home = home.path().to_str().unwrap();
        let token = |variables: &[(&str, &str)]| settings(&[variables, &[("HF_HOME", home)]].concat()).token;
        assert_eq!(token(&[]).as_deref(), Some("stored"));
        assert_eq!(token(&[("HF_TOKEN", " said\r\n")]).as_deref(), Some("said"));
        assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        let shown = format!("{:?}", settings(&[("HF_TOKEN", "secret"), ("HF_HUB_OFFLINE", "1")]));
        assert!(!shown.contains("secret") && shown.contains("offline: true"), "{shown}");
    }
}
