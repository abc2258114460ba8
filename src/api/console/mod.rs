//! The console: a page at `/` that shows what the server does, out of what its public routes tell.
//!
//! It is part of the program, since a page that loads from elsewhere would neither open on a machine without a network nor
//! be the server's own version. `page/` has its sources and `built/` what Vite makes of them; a test holds the two to each
//! other by the digests in `built/digests.txt`. The page shows texts of models and users, so its policy lets it run its own
//! script alone.

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use super::AppState;

/// One of the page's files: where it is served, as what, and its bytes.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

const ASSETS: [Asset; 3] = [
    Asset { path: "/", content_type: "text/html; charset=utf-8", bytes: include_bytes!("built/index.html") },
    Asset {
        path: "/console/console.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("built/console/console.js"),
    },
    Asset {
        path: "/console/console.css",
        content_type: "text/css; charset=utf-8",
        bytes: include_bytes!("built/console/console.css"),
    },
];

/// Scripts and styles of the page's own files, requests to its own server, and nothing else: neither a script within the
/// page, nor text that becomes HTML, nor a frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// The routes of the page and its files.
pub(super) fn routes() -> Router<AppState> {
    ASSETS.iter().fold(Router::new(), |routes, asset| {
        let tag = tag(asset.bytes);
        routes.route(asset.path, get(async move |request: Request| serve(asset, &tag, request.headers())))
    })
}

fn serve(asset: &Asset, tag: &HeaderValue, asked: &HeaderMap) -> Response {
    let headers = [
        (header::ETAG, tag.clone()),
        // The names are the same in every version: a browser asks each time, and gets nothing while nothing has changed.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    if asked.get_all(header::IF_NONE_MATCH).iter().any(|known| names(known, tag)) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(header::CONTENT_TYPE, asset.content_type)], asset.bytes).into_response()
}

/// Whether a list of tags names this one; a proxy that compresses marks it as weak.
fn names(known: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(known), Ok(tag)) = (known.to_str(), tag.to_str()) else { return false };
    known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)
}

/// A digest of what is served, quoted as tags are.
fn tag(bytes: &[u8]) -> HeaderValue {
    let digest = Sha256::digest(bytes);
    let short: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    // Quotes and hexadecimal digits always make a header value; without one, browsers fetch the file each time.
    HeaderValue::from_str(&format!("\"{short}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}
