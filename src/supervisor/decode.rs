//! From a server's bytes to a message, knowing what was asked.
//!
//! rmcp decodes an answer by trying every kind of result in turn, drops one whose frame is wrong and leaves its caller
//! waiting, and loses a whole list to one bad item. Here the answer is decoded as what its request asked for; one that
//! cannot be fails its request, and a bad item of a list is left out and named in the log.

use rmcp::model::{
    CallToolResult, CompleteResult, CreateTaskResult, CustomResult, DiscoverResult, ErrorCode, ErrorData,
    GetPromptResult, InitializeResult, InputRequiredResult, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, Prompt, ReadResourceResult, RequestId, Resource, ResourceTemplate,
    ServerJsonRpcMessage, ServerResult, SubscriptionsListenResult, Tool,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use super::calls::{Calls, Expected};

/// What one message on the wire turned out to be.
#[derive(Debug)]
pub(crate) enum Decoded {
    Message(Box<ServerJsonRpcMessage>),
    /// A request that cannot be understood; its sender is to be told.
    BadRequest(RequestId, ErrorData),
    /// Nothing that anybody waits for, with a word on what it was.
    Noise(String),
}

/// A JSON-RPC message, its payload still as it came.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(default)]
    id: Option<RequestId>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default, borrow)]
    result: Option<&'a RawValue>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

/// Decodes one message. Answers are taken off `calls`.
pub(crate) fn decode(bytes: &[u8], calls: &Calls, server: &str) -> Decoded {
    let frame: Frame<'_> = match serde_json::from_slice(bytes) {
        Ok(frame) => frame,
        Err(error) => return undecodable(bytes, calls, &error),
    };
    match frame {
        Frame { method: Some(method), id, .. } => from_peer(bytes, &method, id),
        Frame { id: Some(id), result: Some(result), error: None, .. } => answered(id, result, calls, server),
        Frame { id, error: Some(error), .. } => refused(id, error, calls),
        Frame { id: Some(id), .. } => failed(id, calls, "it has neither a result nor an error"),
        Frame { .. } => Decoded::Noise("a JSON object that is no JSON-RPC message".to_owned()),
    }
}

fn undecodable(bytes: &[u8], calls: &Calls, error: &serde_json::Error) -> Decoded {
    #[derive(Deserialize)]
    struct OnlyId {
        id: Value,
    }
    let id = serde_json::from_slice::<OnlyId>(bytes).ok().and_then(|only| serde_json::from_value(only.id).ok());
    match id {
        Some(id) => failed(id, calls, &error.to_string()),
        None => Decoded::Noise(preview(bytes)),
    }
}

fn from_peer(bytes: &[u8], method: &str, id: Option<RequestId>) -> Decoded {
    match (serde_json::from_slice::<ServerJsonRpcMessage>(bytes), id) {
        (Ok(message), _) => Decoded::Message(Box::new(message)),
        (Err(error), Some(id)) => {
            let message = format!("`{method}` has the wrong form: {error}");
            Decoded::BadRequest(id, ErrorData::new(ErrorCode::INVALID_PARAMS, message, None))
        }
        (Err(error), None) => Decoded::Noise(format!("the notification `{method}` has the wrong form: {error}")),
    }
}

fn answered(id: RequestId, result: &RawValue, calls: &Calls, server: &str) -> Decoded {
    let Some(expected) = calls.finished(&id) else {
        return Decoded::Noise(format!("an answer to the request {id}, which is not waiting for one"));
    };
    match decode_result(expected, result.get(), server) {
        Ok(result) => Decoded::Message(Box::new(ServerJsonRpcMessage::response(result, id))),
        Err(error) => wrong_answer(id, &error.to_string()),
    }
}

fn refused(id: Option<RequestId>, error: &RawValue, calls: &Calls) -> Decoded {
    let Some(id) = id else {
        return Decoded::Noise(format!("an error for no request in particular: {}", preview(error.get().as_bytes())));
    };
    if calls.finished(&id).is_none() {
        return Decoded::Noise(format!("an error for the request {id}, which is not waiting for an answer"));
    }
    match serde_json::from_str::<ErrorData>(error.get()) {
        Ok(error) => Decoded::Message(Box::new(ServerJsonRpcMessage::error(error, Some(id)))),
        Err(wrong) => wrong_answer(id, &wrong.to_string()),
    }
}

/// Fails the request `id`, if somebody waits for it.
pub(crate) fn failed(id: RequestId, calls: &Calls, problem: &str) -> Decoded {
    match calls.finished(&id) {
        Some(_) => wrong_answer(id, problem),
        None => Decoded::Noise(format!("a message about the request {id}, which is not waiting: {problem}")),
    }
}

fn wrong_answer(id: RequestId, problem: &str) -> Decoded {
    let error =
        ErrorData::new(ErrorCode::INTERNAL_ERROR, format!("the server's answer cannot be used: {problem}"), None);
    Decoded::Message(Box::new(ServerJsonRpcMessage::error(error, Some(id))))
}

fn decode_result(expected: Expected, json: &str, server: &str) -> Result<ServerResult, serde_json::Error> {
    Ok(match expected {
        Expected::Initialize => ServerResult::InitializeResult(serde_json::from_str::<InitializeResult>(json)?),
        Expected::Discover => ServerResult::DiscoverResult(serde_json::from_str::<DiscoverResult>(json)?),
        Expected::Tools => ServerResult::ListToolsResult(list::<ListToolsResult, Tool>(json, "tools", server)?),
        Expected::Prompts => {
            ServerResult::ListPromptsResult(list::<ListPromptsResult, Prompt>(json, "prompts", server)?)
        }
        Expected::Resources => {
            ServerResult::ListResourcesResult(list::<ListResourcesResult, Resource>(json, "resources", server)?)
        }
        Expected::ResourceTemplates => ServerResult::ListResourceTemplatesResult(list::<
            ListResourceTemplatesResult,
            ResourceTemplate,
        >(
            json, "resourceTemplates", server
        )?),
        Expected::ToolCall => match result_type(json) {
            ResultKind::InputRequired => input_required(json)?,
            ResultKind::Task => ServerResult::CreateTaskResult(serde_json::from_str::<CreateTaskResult>(json)?),
            ResultKind::Complete => ServerResult::CallToolResult(serde_json::from_str::<CallToolResult>(json)?),
        },
        Expected::Prompt => match result_type(json) {
            ResultKind::InputRequired => input_required(json)?,
            _ => ServerResult::GetPromptResult(serde_json::from_str::<GetPromptResult>(json)?),
        },
        Expected::Resource => match result_type(json) {
            ResultKind::InputRequired => input_required(json)?,
            _ => ServerResult::ReadResourceResult(serde_json::from_str::<ReadResourceResult>(json)?),
        },
        Expected::Completion => ServerResult::CompleteResult(serde_json::from_str::<CompleteResult>(json)?),
        Expected::Listen => {
            ServerResult::SubscriptionsListenResult(serde_json::from_str::<SubscriptionsListenResult>(json)?)
        }
        Expected::Empty => ServerResult::empty(()),
        Expected::Other => ServerResult::CustomResult(CustomResult::new(serde_json::from_str(json)?)),
    })
}

enum ResultKind {
    Complete,
    InputRequired,
    Task,
}

fn result_type(json: &str) -> ResultKind {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        #[serde(default)]
        result_type: Option<String>,
    }
    if !json.contains("resultType") {
        return ResultKind::Complete;
    }
    match serde_json::from_str::<Typed>(json).ok().and_then(|typed| typed.result_type).as_deref() {
        Some("input_required") => ResultKind::InputRequired,
        Some("task") => ResultKind::Task,
        _ => ResultKind::Complete,
    }
}

fn input_required(json: &str) -> Result<ServerResult, serde_json::Error> {
    Ok(ServerResult::InputRequiredResult(serde_json::from_str::<InputRequiredResult>(json)?))
}

/// A list, without those of its items that are not what they should be.
fn list<L: DeserializeOwned, T: DeserializeOwned>(json: &str, key: &str, server: &str) -> Result<L, serde_json::Error> {
    let whole = serde_json::from_str::<L>(json);
    if whole.is_ok() {
        return whole;
    }
    let mut value: Value = serde_json::from_str(json)?;
    if !retain_valid::<T>(&mut value, key, server) {
        return whole;
    }
    serde_json::from_value(value)
}

/// Takes the items out of `value[key]` that are no `T`, and says whether there were any.
fn retain_valid<T: DeserializeOwned>(value: &mut Value, key: &str, server: &str) -> bool {
    let Some(items) = value.get_mut(key).and_then(Value::as_array_mut) else {
        return false;
    };
    let before = items.len();
    items.retain(|item| match T::deserialize(item) {
        Ok(_) => true,
        Err(error) => {
            let name = item.get("name").and_then(Value::as_str).unwrap_or("without a name");
            tracing::warn!(server.name = server, list = key, item = name, %error, "left a bad item out of a server's list");
            false
        }
    });
    items.len() != before
}

/// A list that rmcp could not read, without its bad items; as it was if that does not help.
pub(crate) fn repair(
    custom: CustomResult,
    key: &str,
    server: &str,
    read: impl Fn(Value) -> Result<ServerResult, serde_json::Error>,
) -> ServerResult {
    let mut value = custom.0.clone();
    let changed = match key {
        "tools" => retain_valid::<Tool>(&mut value, key, server),
        "prompts" => retain_valid::<Prompt>(&mut value, key, server),
        "resources" => retain_valid::<Resource>(&mut value, key, server),
        _ => retain_valid::<ResourceTemplate>(&mut value, key, server),
    };
    if !changed {
        return ServerResult::CustomResult(custom);
    }
    read(value).unwrap_or(ServerResult::CustomResult(custom))
}

/// The text of a streamable HTTP event, with bad tools left out of a list of tools.
///
/// rmcp decodes these events itself and would give up on the whole list. Only an answer that carries a list of tools is
/// looked at.
pub(crate) fn repair_tools(text: &str, server: &str) -> Option<String> {
    if !text.contains("\"tools\"") {
        return None;
    }
    let mut message: Value = serde_json::from_str(text).ok()?;
    let result = message.get_mut("result")?;
    retain_valid::<Tool>(result, "tools", server).then(|| message.to_string())
}

fn preview(bytes: &[u8]) -> String {
    const BYTES_MAX: usize = 200;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(BYTES_MAX)]);
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmcp::model::{CallToolRequest, CallToolRequestParams, ClientRequest, ListToolsRequest};

    fn calling(request: &ClientRequest) -> std::sync::Arc<Calls> {
        let calls = Calls::new();
        calls.sent(request, &RequestId::Number(1));
        calls
    }

    fn tool_call() -> std::sync::Arc<Calls> {
        calling(&ClientRequest::CallToolRequest(CallToolRequest::new(CallToolRequestParams::new("x"))))
    }

    fn tool_list() -> std::sync::Arc<Calls> {
        calling(&ClientRequest::ListToolsRequest(ListToolsRequest::default()))
    }

    fn error_of(decoded: Decoded) -> String {
        match decoded {
            Decoded::Message(message) => match *message {
                ServerJsonRpcMessage::Error(error) => error.error.message.into_owned(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_is_decoded_as_what_was_asked() {
        let text = br#"{"result":{"content":[{"type":"text","text":"hi"}]},"jsonrpc":"2.0","id":1}"#;
        let Decoded::Message(message) = decode(text, &tool_call(), "s") else { panic!() };
        let ServerJsonRpcMessage::Response(response) = *message else { panic!() };
        assert!(matches!(response.result, ServerResult::CallToolResult(_)));
    }

    #[test]
    fn a_wrong_answer_fails_its_call() {
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"result":{"content":"not a list"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":7}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
        ] {
            assert!(error_of(decode(text.as_bytes(), &tool_call(), "s")).contains("cannot be used"), "{text}");
        }
    }

    #[test]
    fn a_bad_tool_does_not_spoil_the_list() {
        let text = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[
            {"name":"good","inputSchema":{"type":"object"}},{"name":"bad"},{"name":"worse","inputSchema":"x"}]}}"#;
        let Decoded::Message(message) = decode(text.as_bytes(), &tool_list(), "s") else { panic!() };
        let ServerJsonRpcMessage::Response(response) = *message else { panic!() };
        let ServerResult::ListToolsResult(list) = response.result else { panic!() };
        assert_eq!(list.tools.iter().map(|tool| tool.name.as_ref()).collect::<Vec<_>>(), ["good"]);
        let repaired = repair_tools(text, "s").unwrap();
        assert!(repaired.contains("good") && !repaired.contains("worse"));
    }

    #[test]
    fn what_nobody_waits_for_is_noise() {
        for text in ["Server started!", "{}", "[]", "null", r#"{"jsonrpc":"2.0","id":9,"result":{}}"#] {
            assert!(matches!(decode(text.as_bytes(), &tool_call(), "s"), Decoded::Noise(_)), "{text}");
        }
    }
}
