//! A call that did not do what it was to do, and how its caller is told.

use std::borrow::Cow;

use rmcp::model::{CallToolResult, ContentBlock, ErrorCode, ErrorData};
use serde_json::Value;

use super::{Reply, reach::ReachError};
use crate::{
    audit::{AuditError, Status},
    session::SessionsError,
    store::StoreError,
    supervisor::{RequestError, upstream::chain},
};

/// Why a call failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: Status,
    tell: Tell,
}

#[derive(Debug)]
enum Tell {
    /// A sentence that says what to do next, in a result the model sees.
    Sentence { text: String, structured: Option<Value> },
    /// The protocol's own kind of error: the request was malformed, or the server said so.
    Protocol(ErrorData),
}

impl Failure {
    /// A failure the model is told of.
    pub(super) fn said(text: impl Into<String>) -> Self {
        Self { status: Status::Error, tell: Tell::Sentence { text: text.into(), structured: None } }
    }

    /// The same, with data beside the sentence.
    pub(super) fn said_with(text: impl Into<String>, structured: Value) -> Self {
        Self { status: Status::Error, tell: Tell::Sentence { text: text.into(), structured: Some(structured) } }
    }

    /// A call that was not let run.
    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self { status: Status::Refused, tell: Tell::Sentence { text: text.into(), structured: None } }
    }

    /// A request that names what does not exist, or is malformed.
    pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::Refused, tell: Tell::Protocol(ErrorData::invalid_params(message, None)) }
    }

    pub(super) fn protocol(error: ErrorData) -> Self {
        Self { status: Status::Error, tell: Tell::Protocol(error) }
    }

    pub(super) fn with_status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// The failure in words.
    pub(super) fn text(&self) -> &str {
        match &self.tell {
            Tell::Sentence { text, .. } => text,
            Tell::Protocol(error) => &error.message,
        }
    }

    /// The protocol's error code, if it is the protocol's kind of error.
    pub(super) fn code(&self) -> Option<ErrorCode> {
        match &self.tell {
            Tell::Sentence { .. } => None,
            Tell::Protocol(error) => Some(error.code),
        }
    }

    /// What the caller of a tool gets.
    pub(super) fn into_tool_reply(self) -> Result<Reply, ErrorData> {
        match self.tell {
            Tell::Sentence { text, structured } => {
                let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
                result.structured_content = structured;
                Ok(Reply::CallToolResult(result))
            }
            Tell::Protocol(error) => Err(error),
        }
    }

    /// What the caller of anything else gets: only tools have results that are errors.
    pub(super) fn into_protocol_error(self) -> ErrorData {
        match self.tell {
            Tell::Sentence { text, .. } => ErrorData::new(ErrorCode::INTERNAL_ERROR, text, None),
            Tell::Protocol(error) => error,
        }
    }
}

impl From<ReachError> for Failure {
    fn from(error: ReachError) -> Self {
        let status = match &error {
            ReachError::Cancelled => Status::Cancelled,
            ReachError::Needs { .. } | ReachError::NotInCatalog(_) => Status::Refused,
            ReachError::Launch { .. } | ReachError::Start(_) => Status::Error,
        };
        Self::said(error.to_string()).with_status(status)
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Protocol(error) => Self::protocol(error),
            RequestError::Cancelled => Self::said(error.to_string()).with_status(Status::Cancelled),
            RequestError::Silent(_) | RequestError::TooLong(_) => {
                Self::said(error.to_string()).with_status(Status::Timeout)
            }
            other => Self::said(other.to_string()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::said(format!("nothing was changed: {}. Is the disk full, or the data folder read-only?", chain(&error)))
    }
}

impl From<SessionsError> for Failure {
    fn from(error: SessionsError) -> Self {
        match error {
            SessionsError::Store(error) => error.into(),
            SessionsError::Audit(error) => error.into(),
            other => Self::refused(other.to_string()),
        }
    }
}

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        Self::said(format!("nothing was done, because it could not be recorded: {}", chain(&error)))
            .with_status(Status::Refused)
    }
}
