//! KServe's V2 protocol over gRPC, with gRPC's own health protocol, on the same port as HTTP.

mod codec;
mod convert;
mod health;

use std::mem;

use axum::Router;
use tonic::{Request, Response, Status, codec::CompressionEncoding, metadata::MetadataValue, service::Routes};
use tonic_health::pb::health_server::HealthServer;

use super::{DIALECT, addressed, dto, find, inference, repository};
use crate::api::{
    AppState, checks,
    dialects::parts::{Call, UrlChoices},
    middleware,
    problem::{Problem, ProblemType},
};
use codec::UnreadInferRequest;
use service::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};

/// The protocol's messages.
#[allow(warnings, reason = "generated from proto/inference.proto")]
mod protocol {
    include!(concat!(env!("OUT_DIR"), "/messages/inference.rs"));
}

/// The protocol's service.
#[allow(warnings, reason = "generated from proto/inference.proto")]
mod service {
    tonic::include_proto!("inference");
}

/// The services as routes.
pub(in crate::api) fn routes(state: &AppState) -> Router<AppState> {
    let limit = state.limits.body_bytes;
    let inference = [CompressionEncoding::Gzip, CompressionEncoding::Zstd].into_iter().fold(
        GrpcInferenceServiceServer::new(Service { state: state.clone() }).max_decoding_message_size(limit),
        |service, encoding| service.accept_compressed(encoding).send_compressed(encoding),
    );
    let health = HealthServer::new(health::Health { state: state.clone() });
    Routes::new(inference).add_service(health).into_axum_router().with_state(())
}

/// The inference service.
#[derive(Debug)]
struct Service {
    state: AppState,
}

/// A problem as clients of gRPC are told of it before any service has the request.
pub(in crate::api) fn tell(problem: &Problem) -> axum::response::Response {
    let mut response = status(problem).into_http();
    problem.set_retry_after(response.headers_mut());
    response
}

/// A problem in gRPC's words.
fn status(problem: &Problem) -> Status {
    let detail = problem.detail();
    match problem.kind() {
        ProblemType::UnknownModel | ProblemType::UnknownRoute => Status::not_found(detail),
        ProblemType::ModelUnavailable => Status::unavailable(detail),
        ProblemType::NoKey => Status::unauthenticated(detail),
        ProblemType::KeyForbids | ProblemType::Forbidden => Status::permission_denied(detail),
        ProblemType::OtherVersion | ProblemType::InUse | ProblemType::NotLoaded => Status::failed_precondition(detail),
        ProblemType::Overloaded | ProblemType::OutOfTokens | ProblemType::StateFull => {
            Status::resource_exhausted(detail)
        }
        ProblemType::DeadlinePassed => Status::deadline_exceeded(detail),
        ProblemType::ModelFailed | ProblemType::Internal => Status::internal(detail),
        _ => Status::invalid_argument(detail),
    }
}

/// What a client wants scored, and by which model: whether that is there is told first.
struct Wanted {
    model: String,
    version: String,
    /// Whether its tensors came packed.
    packed: bool,
    request: Result<(inference::InferRequest, UrlChoices), Problem>,
}

fn read(unread: UnreadInferRequest) -> Result<Wanted, Status> {
    let mut message = unread.read()?;
    Ok(Wanted {
        model: mem::take(&mut message.model_name),
        version: mem::take(&mut message.model_version),
        packed: !message.raw_input_contents.is_empty(),
        request: convert::request(message),
    })
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, _: Request<protocol::ServerLiveRequest>) -> Answer<protocol::ServerLiveResponse> {
        Ok(Response::new(protocol::ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<protocol::ServerReadyRequest>) -> Answer<protocol::ServerReadyResponse> {
        Ok(Response::new(protocol::ServerReadyResponse { ready: self.state.is_ready() }))
    }

    async fn server_metadata(
        &self,
        _: Request<protocol::ServerMetadataRequest>,
    ) -> Answer<protocol::ServerMetadataResponse> {
        let dto::ServerMetadata { name, version, extensions } = dto::ServerMetadata::current();
        Ok(Response::new(protocol::ServerMetadataResponse {
            name: name.to_owned(),
            version: version.to_owned(),
            extensions: extensions.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_ready(&self, request: Request<protocol::ModelReadyRequest>) -> Answer<protocol::ModelReadyResponse> {
        let protocol::ModelReadyRequest { name, version } = request.into_inner();
        let ready = match find(&self.state, &name, Some(&version)) {
            Ok(_) => true,
            Err(problem) if problem.kind() == ProblemType::ModelUnavailable => false,
            Err(problem) => return Err(status(&problem)),
        };
        Ok(Response::new(protocol::ModelReadyResponse { ready }))
    }

    async fn model_metadata(
        &self,
        request: Request<protocol::ModelMetadataRequest>,
    ) -> Answer<protocol::ModelMetadataResponse> {
        let protocol::ModelMetadataRequest { name, version } = request.into_inner();
        let model = find(&self.state, &name, Some(&version)).map_err(|problem| status(&problem))?;
        Ok(Response::new(convert::metadata(&model)))
    }

    async fn model_config(
        &self,
        request: Request<protocol::ModelConfigRequest>,
    ) -> Answer<protocol::ModelConfigResponse> {
        let protocol::ModelConfigRequest { name, version } = request.into_inner();
        let model = find(&self.state, &name, Some(&version)).map_err(|problem| status(&problem))?;
        Ok(Response::new(convert::config(&model, self.state.limits.inputs)))
    }

    async fn model_infer(&self, request: Request<UnreadInferRequest>) -> Answer<protocol::ModelInferResponse> {
        let state = self.state.visited_by(request.extensions());
        let id = middleware::id_among(request.extensions());
        let unread = request.into_inner();
        let read = state.large_bodies.read(unread.len(), move || read(unread)).await;
        let Wanted { model, version, packed, request } = read.map_err(|problem| status(&problem))??;
        let model = addressed(&self.state, &model, Some(&version)).map_err(|problem| status(&problem))?;
        self.state.engine.model(&model).map_err(|error| status(&error.into()))?;
        let (request, url) = request.map_err(|problem| status(&problem))?;
        let call = Call::of_model(state, &DIALECT, id, model.to_string(), url).map_err(|problem| status(&problem))?;
        let inferred = inference::run(call, request).await.map_err(|problem| status(&problem))?;
        let refused = inferred.report.refused;
        let mut response = Response::new(convert::reply(inferred, packed));
        if refused > 0 {
            response.metadata_mut().insert("x-karat-refused", MetadataValue::from(refused));
        }
        Ok(response)
    }

    async fn repository_index(
        &self,
        request: Request<protocol::RepositoryIndexRequest>,
    ) -> Answer<protocol::RepositoryIndexResponse> {
        let entries = repository::entries(&self.state, request.into_inner().ready).into_iter();
        let models = entries.map(|entry| protocol::repository_index_response::ModelIndex {
            name: entry.name.to_string(),
            version: entry.version.map(|version| version.to_string()).unwrap_or_default(),
            state: entry.state.to_owned(),
            reason: entry.reason,
        });
        Ok(Response::new(protocol::RepositoryIndexResponse { models: models.collect() }))
    }

    async fn repository_model_load(
        &self,
        request: Request<protocol::RepositoryModelLoadRequest>,
    ) -> Answer<protocol::RepositoryModelLoadResponse> {
        let model = checks::model(&request.into_inner().model_name).map_err(|problem| status(&problem))?;
        self.state.engine.repository().load(model).await.map_err(|error| status(&error.into()))?;
        Ok(Response::new(protocol::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<protocol::RepositoryModelUnloadRequest>,
    ) -> Answer<protocol::RepositoryModelUnloadResponse> {
        let model = checks::model(&request.into_inner().model_name).map_err(|problem| status(&problem))?;
        self.state.engine.repository().unload(model).await.map_err(|error| status(&error.into()))?;
        Ok(Response::new(protocol::RepositoryModelUnloadResponse {}))
    }
}
