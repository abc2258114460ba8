//! Execution providers as a manifest writes them: which hardware a graph should run on, in order of preference.

use std::{borrow::Cow, fmt, num::NonZeroUsize, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};

use super::{BatchLimits, Devices, ShapeProfile};

/// One entry of a manifest's `providers`: a bare name, or a table with the name as its only key.
///
/// ```toml
/// providers = [{ cuda = { devices = [0, 1], memory_limit_mb = 8192 } }, "cpu"]
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU through CUDA.
    Cuda(CudaOptions),
    /// An NVIDIA GPU through TensorRT.
    Tensorrt(TensorrtOptions),
}

/// The name of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU through CUDA.
    Cuda,
    /// An NVIDIA GPU through TensorRT.
    Tensorrt,
}

impl ProviderKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Cuda, Self::Tensorrt];

    /// The name as manifests spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Tensorrt => "tensorrt",
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Options of the CUDA provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CudaOptions {
    /// The GPU, or a list of GPUs that each get a replica of the graph and share its queue; also written `device`.
    #[serde(alias = "device")]
    pub(crate) devices: Devices,
    /// How much memory of each GPU the arena of a session may take, in MiB; without it, all there is.
    pub(crate) memory_limit_mb: Option<NonZeroUsize>,
    /// How the arena grows.
    pub(crate) arena: Arena,
    /// Whether matrix products may use TF32, which is faster and keeps about three decimal digits.
    pub(crate) tf32: bool,
    /// Whether small passes are captured once for each shape and replayed, which saves the time to start kernels one
    /// by one. Shapes are rounded up to a few; large passes run as they are. Only for graphs whose operators all run
    /// on the GPU, without control flow.
    pub(crate) cuda_graph: bool,
    /// The longest sample that comes, beyond which no shape is rounded; taken from `text.max_tokens`.
    #[serde(skip)]
    #[schemars(skip)]
    pub longest: Option<NonZeroUsize>,
}

/// How the memory arena of a GPU grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Arena {
    /// By what is asked for: less memory, more allocations.
    #[default]
    SameAsRequested,
    /// By doubling: fewer allocations, up to twice the memory.
    NextPowerOfTwo,
}

/// Options of the TensorRT provider.
///
/// An operator that TensorRT can't run is an error, unless the manifest names `cuda` or `cpu` behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TensorrtOptions {
    /// The GPU, or a list of GPUs that each get a replica of the graph and share its queue; also written `device`.
    #[serde(alias = "device")]
    pub(crate) devices: Devices,
    /// Whether layers may run in half precision; norms stay in single precision.
    pub(crate) fp16: bool,
    /// Whether layers may run in bfloat16.
    pub(crate) bf16: bool,
    /// Whether layers may run in 8-bit integers, where the graph quantises and dequantises them.
    pub(crate) int8: bool,
    /// The folder that keeps built engines and timings of kernels, relative to the graph's folder; `tensorrt` by
    /// default. Each graph, precision, profile, GPU and library gets a folder of its own below it.
    #[serde(deserialize_with = "folder")]
    pub(crate) engine_cache: Option<PathBuf>,
    /// How much GPU memory a layer may use while it computes, in MiB.
    pub(crate) workspace_mb: Option<NonZeroUsize>,
    /// The shapes that an engine is built for. By default from one token to `text.max_tokens`, with as many samples as
    /// `scheduling` allows at that length.
    pub(crate) profile: Option<ShapeProfile>,
}

/// A provider that was preferred but can't start, so that the next in the list was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SkippedProvider {
    /// What was asked for.
    pub(crate) provider: ProviderKind,
    /// Why it can't start.
    pub(crate) reason: String,
}

impl Provider {
    /// Its name.
    #[must_use]
    pub fn kind(&self) -> ProviderKind {
        match self {
            Self::Cpu => ProviderKind::Cpu,
            Self::Cuda(_) => ProviderKind::Cuda,
            Self::Tensorrt(_) => ProviderKind::Tensorrt,
        }
    }
}

impl Provider {
    /// Fills in what the provider has to know of batches, where its options leave that open.
    #[must_use]
    pub fn for_batches(self, limits: &BatchLimits) -> Self {
        match self {
            Self::Cpu => self,
            Self::Cuda(options) => Self::Cuda(CudaOptions { longest: Some(limits.longest), ..options }),
            Self::Tensorrt(options) => {
                let profile = options.profile.unwrap_or_else(|| ShapeProfile::of(limits));
                Self::Tensorrt(TensorrtOptions { profile: Some(profile), ..options })
            }
        }
    }

    /// How many GPUs it runs on; 1 for the processor.
    #[must_use]
    pub(crate) fn devices(&self) -> NonZeroUsize {
        match self {
            Self::Cpu => NonZeroUsize::MIN,
            Self::Cuda(CudaOptions { devices, .. }) | Self::Tensorrt(TensorrtOptions { devices, .. }) => {
                devices.count()
            }
        }
    }

    /// The shapes that it was built for, if it takes no others.
    #[must_use]
    pub(crate) fn profile(&self) -> Option<&ShapeProfile> {
        match self {
            Self::Tensorrt(options) => options.profile.as_ref(),
            Self::Cpu | Self::Cuda(_) => None,
        }
    }
}

impl From<ProviderKind> for Provider {
    fn from(kind: ProviderKind) -> Self {
        match kind {
            ProviderKind::Cpu => Self::Cpu,
            ProviderKind::Cuda => Self::Cuda(CudaOptions::default()),
            ProviderKind::Tensorrt => Self::Tensorrt(TensorrtOptions::default()),
        }
    }
}

impl Serialize for Provider {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Cpu => serializer.serialize_str(ProviderKind::Cpu.as_str()),
            Self::Cuda(options) => single(serializer, ProviderKind::Cuda, options),
            Self::Tensorrt(options) => single(serializer, ProviderKind::Tensorrt, options),
        }
    }
}

fn single<S: Serializer, T: Serialize>(serializer: S, kind: ProviderKind, options: &T) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(kind.as_str(), options)?;
    map.end()
}

impl<'de> Deserialize<'de> for Provider {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// `cpu` has nothing to set, but its table form is accepted like that of the others.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct CpuOptions {}

        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Provider;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a provider: \"cpu\", \"cuda\" or \"tensorrt\", or a table with that as its only key")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Provider, E> {
                kind(name).map(Provider::from)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Provider, A::Error> {
                let name: String = map.next_key()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let provider = match kind(&name)? {
                    ProviderKind::Cpu => map.next_value::<CpuOptions>().map(|_| Provider::Cpu),
                    ProviderKind::Cuda => map.next_value().map(Provider::Cuda),
                    ProviderKind::Tensorrt => map.next_value().map(Provider::Tensorrt),
                }?;
                match map.next_key::<String>()? {
                    None => Ok(provider),
                    Some(second) => Err(de::Error::custom(format!(
                        "a provider's table has one key, found {name:?} and {second:?}; write one table for each"
                    ))),
                }
            }
        }

        fn kind<E: de::Error>(name: &str) -> Result<ProviderKind, E> {
            ProviderKind::ALL
                .into_iter()
                .find(|kind| kind.as_str() == name)
                .ok_or_else(|| E::unknown_variant(name, &["cpu", "cuda", "tensorrt"]))
        }

        deserializer.deserialize_any(Written)
    }
}

/// A folder, without the zero character that C takes for a text's end.
fn folder<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path: Option<String> = Option::deserialize(deserializer)?;
    if path.as_ref().is_some_and(|path| path.contains('\0')) {
        return Err(de::Error::custom("a folder's name can't hold U+0000"));
    }
    Ok(path.map(PathBuf::from))
}

impl JsonSchema for Provider {
    fn schema_name() -> Cow<'static, str> {
        "Provider".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let cuda = generator.subschema_for::<CudaOptions>();
        let tensorrt = generator.subschema_for::<TensorrtOptions>();
        json_schema!({
            "description": "Which hardware to run on: a name, or a table with the name as its only key and the options as its value.",
            "oneOf": [
                { "type": "string", "title": "by name", "enum": ["cpu", "cuda", "tensorrt"] },
                {
                    "type": "object", "title": "cpu", "required": ["cpu"], "additionalProperties": false,
                    "properties": { "cpu": { "type": "object", "additionalProperties": false } },
                },
                {
                    "type": "object", "title": "cuda", "required": ["cuda"], "additionalProperties": false,
                    "properties": { "cuda": cuda },
                },
                {
                    "type": "object", "title": "tensorrt", "required": ["tensorrt"], "additionalProperties": false,
                    "properties": { "tensorrt": tensorrt },
                },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Manifest {
        providers: Vec<Provider>,
    }

    fn parse(list: &str) -> Result<Vec<Provider>, String> {
        toml::from_str::<Manifest>(&format!("providers = {list}"))
            .map(|manifest| manifest.providers)
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_provider_is_a_name_or_a_table_of_one() {
        assert_eq!(parse(r#"["cpu", { cpu = {} }]"#).unwrap(), [Provider::Cpu, Provider::Cpu]);
        assert_eq!(
            parse(r#"["cuda", { cuda = { device = 1, memory_limit_mb = 512, arena = "next_power_of_two" } }]"#)
                .unwrap(),
            [
                Provider::Cuda(CudaOptions::default()),
                Provider::Cuda(CudaOptions {
                    devices: Devices::new(vec![1]).unwrap(),
                    memory_limit_mb: NonZeroUsize::new(512),
                    arena: Arena::NextPowerOfTwo,
                    ..CudaOptions::default()
                }),
            ]
        );
        let list = parse(
            r#"[{ tensorrt = { fp16 = true, engine_cache = "engines",
                profile = { min = { batch = 1, tokens = 1 }, best = { batch = 8, tokens = 128 }, max = { batch = 32, tokens = 512 } } } }]"#,
        );
        let Ok([Provider::Tensorrt(options)]) = list.as_deref() else { panic!("{list:?}") };
        assert_eq!(options.profile.as_ref().unwrap().best.tokens.get(), 128);
    }

    #[test]
    fn several_gpus_are_a_list() {
        let both = parse(r#"[{ cuda = { devices = [0, 1] } }]"#).unwrap();
        assert_eq!(both[0].devices().get(), 2);
        assert_eq!(parse(r#"[{ cuda = { device = 1 } }]"#), parse(r#"[{ cuda = { devices = [1] } }]"#));
        let error = parse(r#"[{ cuda = { device = 1, devices = [0] } }]"#).unwrap_err();
        assert!(error.contains("duplicate"), "{error}");
    }

    #[test]
    fn an_open_profile_follows_from_the_manifests_limits() {
        let positive = |number| NonZeroUsize::new(number).unwrap();
        let limits = BatchLimits { longest: positive(512), positions: positive(16_384), samples: None };
        let derived = |provider: &str, limits: &BatchLimits| {
            let mut list = parse(provider).unwrap();
            list.remove(0).for_batches(limits).profile().cloned().map(|profile| {
                [profile.min, profile.best, profile.max].map(|shape| (shape.batch.get(), shape.tokens.get()))
            })
        };
        let open = r#"["tensorrt"]"#;
        assert_eq!(derived(open, &limits), Some([(1, 1), (32, 128), (32, 512)]));
        let few = BatchLimits { samples: Some(positive(8)), ..limits };
        assert_eq!(derived(open, &few), Some([(1, 1), (8, 128), (8, 512)]));
        let long = BatchLimits { longest: positive(32_768), ..limits };
        assert_eq!(derived(open, &long), Some([(1, 1), (1, 128), (1, 32_768)]), "a long sample runs alone");
        let short = BatchLimits { longest: positive(64), ..limits };
        assert_eq!(derived(open, &short), Some([(1, 1), (256, 64), (256, 64)]));
        let written = r#"[{ tensorrt = { profile = { min = { batch = 1, tokens = 8 }, best = { batch = 2, tokens = 8 },
            max = { batch = 4, tokens = 16 } } } }]"#;
        assert_eq!(derived(written, &limits), Some([(1, 8), (2, 8), (4, 16)]), "what is written stays");
        assert_eq!(derived(r#"["cuda"]"#, &limits), None);
    }

    #[test]
    fn a_mistake_is_named() {
        for (list, part) in [
            (r#"["gpu"]"#, "gpu"),
            (r#"[{ cuda = { divice = 1 } }]"#, "divice"),
            (r#"[{ cpu = { threads = 1 } }]"#, "threads"),
            (r#"[{ cuda = {}, cpu = {} }]"#, "one key"),
            (r"[{}]", "only key"),
            (r"[3]", "a provider"),
            (r#"[{ tensorrt = { engine_cache = "a\u0000b" } }]"#, "U+0000"),
            (r#"[{ cuda = { arena = "greedy" } }]"#, "greedy"),
        ] {
            let error = parse(list).unwrap_err();
            assert!(error.contains(part), "{list}: {error}");
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for provider in ProviderKind::ALL.map(Provider::from) {
            let json = serde_json::to_string(&provider).unwrap();
            assert_eq!(serde_json::from_str::<Provider>(&json).unwrap(), provider, "{json}");
        }
    }
}
