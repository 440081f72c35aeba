//! Getting a source's text from where it is kept, if it has changed.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Client, StatusCode, Url, header};

use super::{file::FILE_BYTES_MAX, source::shown};

const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Between two pieces of an answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// One answer as a whole.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// It could not be got. What was there before still counts. Addresses are told as they may be noted: there may be a token in
/// them.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(
        "`{0}` is not an address that can be asked: https, or http on this machine, without a name or password in it"
    )]
    Address(String),
    #[error("{url} did not answer: {problem}")]
    Silent { url: String, problem: String },
    #[error("{url} answered {status}")]
    Status { url: String, status: StatusCode },
    #[error("the answer of {url} is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge { url: String },
    #[error("the answer of {url} is not text")]
    NotText { url: String },
}

/// By what a source tells whether it has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Marks {
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

/// What came.
pub struct Fetched {
    /// None when nothing has changed.
    pub text: Option<String>,
    pub marks: Marks,
}

/// The client for all sources.
///
/// # Errors
///
/// When the system's TLS settings cannot be read.
pub fn client() -> reqwest::Result<Client> {
    Client::builder()
        .connect_timeout(CONNECT_MAX)
        .read_timeout(SILENCE_MAX)
        .timeout(ANSWER_MAX)
        .redirect(reqwest::redirect::Policy::custom(|attempt| {
            if attempt.previous().len() > 5 {
                attempt.error("too many redirects")
            } else if is_safe(attempt.url()) {
                attempt.follow()
            } else {
                attempt.error("a redirect to an address without TLS")
            }
        }))
        .user_agent(concat!("mcp-broker/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// An address that may be asked. What it says is run on this machine, so nobody on the way may change it.
///
/// # Errors
///
/// When it is no such address.
pub fn address(text: &str) -> Result<Url, FetchError> {
    let parsed = Url::parse(text).ok().filter(is_safe);
    parsed.ok_or_else(|| FetchError::Address(shown(text)))
}

fn is_safe(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let named = !url.username().is_empty() || url.password().is_some();
    !named && !host.is_empty() && (url.scheme() == "https" || (url.scheme() == "http" && here))
}

/// Asks for `url`, and takes its text if it is not what `marks` were of.
///
/// # Errors
///
/// When there is no whole and good answer.
pub async fn get(client: &Client, url: &Url, marks: &Marks) -> Result<Fetched, FetchError> {
    let told = || shown(url.as_str());
    let silent = |error: reqwest::Error| FetchError::Silent { url: told(), problem: root(&error.without_url()) };
    let mut request = client.get(url.clone());
    for (name, value) in [(header::IF_NONE_MATCH, &marks.etag), (header::IF_MODIFIED_SINCE, &marks.last_modified)] {
        if let Some(value) = value {
            request = request.header(name, value);
        }
    }
    let response = request.send().await.map_err(silent)?;
    if response.status() == StatusCode::NOT_MODIFIED {
        return Ok(Fetched { text: None, marks: marks.clone() });
    }
    if !response.status().is_success() {
        return Err(FetchError::Status { url: told(), status: response.status() });
    }
    let mark = |name: header::HeaderName| response.headers().get(name)?.to_str().ok().map(str::to_owned);
    let marks = Marks { etag: mark(header::ETAG), last_modified: mark(header::LAST_MODIFIED) };
    let mut bytes = Vec::new();
    let mut body = response.bytes_stream();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece.map_err(silent)?);
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(FetchError::TooLarge { url: told() });
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| FetchError::NotText { url: told() })?;
    Ok(Fetched { text: Some(text), marks })
}

/// What was at the bottom of it: the others say "error sending request".
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    match error.source() {
        Some(cause) => root(cause),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_on_the_way_may_change_a_catalog() {
        for good in ["https://example.com/c.yaml", "http://127.0.0.1:1/c", "http://[::1]/c", "http://localhost:9/"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in
            ["http://example.com/c.yaml", "ftp://example.com/", "https://me:pw@example.com/", "c.yaml", "file:///x"]
        {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_refused_without_telling_what_is_secret_in_it() {
        for bad in ["http://example.com/c.yaml?token=hush", "https://me:hush@example.com/", "https://a:x/c?token=hush"]
        {
            let error = address(bad).unwrap_err().to_string();
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_does_not_answer_is_told_without_its_token() {
        let url = address("http://127.0.0.1:1/c.yaml?token=hush").unwrap();
        let error = get(&client().unwrap(), &url, &Marks::default()).await.err().unwrap().to_string();
        assert!(error.starts_with("http://127.0.0.1:1/c.yaml ") && !error.contains("hush"), "{error}");
    }
}
