//! What a request is about to do, as far as keys care.

use http::Method;

/// Which kind of key a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// None: probes ask whether the server lives, and a browser for the console's page.
    Health,
    /// Any.
    Open,
    /// One that may change what is served.
    Admin,
}

/// The calls of gRPC that tell only whether the server lives, or a model is ready.
const HEALTH_CALLS: [&str; 5] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/inference.GRPCInferenceService/ModelReady",
];
/// The calls of gRPC that change what is served.
const ADMIN_CALLS: [&str; 2] =
    ["/inference.GRPCInferenceService/RepositoryModelLoad", "/inference.GRPCInferenceService/RepositoryModelUnload"];

/// Whether a route is one that monitors ask again and again.
pub(in crate::api) fn is_probe(pattern: &str) -> bool {
    pattern == "/metrics"
        || pattern.starts_with("/grpc.health.v1.Health/")
        || Place::of(&Method::GET, "", pattern) == Place::Health
}

impl Place {
    /// Of a path, which matched a route's pattern. Only the pattern is believed where it says everything: a path may
    /// hold any name of a model.
    pub(super) fn of(method: &Method, path: &str, pattern: &str) -> Self {
        if pattern.contains("{*") {
            return match path {
                _ if HEALTH_CALLS.contains(&path) => Self::Health,
                _ if ADMIN_CALLS.contains(&path) => Self::Admin,
                _ => Self::Open,
            };
        }
        let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| pattern.ends_with(suffix));
        match () {
            () if ends(&["/health", "/health/live", "/health/ready", "}/ready"]) => Self::Health,
            // The console asks for a key itself.
            () if pattern == "/" || pattern.starts_with("/console/") => Self::Health,
            () if ends(&["/load", "/unload"]) || (ends(&["/traffic", "/normaliser"]) && method != Method::GET) => {
                Self::Admin
            }
            () => Self::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_needs_no_key_and_changing_models_an_admin_one() {
        let call = "/inference.GRPCInferenceService/{*rest}";
        for (path, pattern, place) in [
            ("/health/live", "/health/live", Place::Health),
            ("/m/a/tei/health", "/m/{model}/tei/health", Place::Health),
            ("/kserve/v2/health/ready", "/kserve/v2/health/ready", Place::Health),
            ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/{*rest}", Place::Health),
            ("/inference.GRPCInferenceService/ServerReady", call, Place::Health),
            ("/inference.GRPCInferenceService/ModelInfer", call, Place::Open),
            ("/inference.GRPCInferenceService/RepositoryModelUnload", call, Place::Admin),
            ("/v2/models/a/ready", "/v2/models/{model}/ready", Place::Health),
            ("/v2/repository/models/a/load", "/v2/repository/models/{model}/load", Place::Admin),
            ("/v1/models/a/unload", "/v1/models/{name}/unload", Place::Admin),
            ("/metrics", "/metrics", Place::Open),
            ("/v1/models", "/v1/models", Place::Open),
            ("/v1/jobs", "/v1/jobs", Place::Open),
            ("/v1/runs/health", "/v1/runs/{run}", Place::Open),
            // Names of models are no routes.
            ("/v1/models/load", "/v1/models/{name}", Place::Open),
            ("/v2/models/health", "/v2/models/{model}", Place::Open),
            ("/nowhere/health/live", "", Place::Open),
        ] {
            assert_eq!(Place::of(&Method::POST, path, pattern), place, "{path}");
        }
        // What a share of requests tries is shown to everybody.
        for route in ["traffic", "normaliser"] {
            let place =
                |method| Place::of(&method, &format!("/v1/models/a/{route}"), &format!("/v1/models/{{name}}/{route}"));
            assert_eq!((place(Method::GET), place(Method::PUT)), (Place::Open, Place::Admin), "{route}");
        }
    }
}
