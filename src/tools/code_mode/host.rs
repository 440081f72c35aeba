//! A script's way to its tools: through the door, as calls of their own below the script's.

use std::sync::Arc;

use js_runtime::{CallError, CallFuture, Host};
use rmcp::model::{CallToolRequestParams, CallToolResult};
use serde_json::{Map, Value, value::RawValue};
use tokio::sync::oneshot;
use tokio_util::sync::DropGuard;

use super::{
    check,
    declare::{Callable, tools_of},
    names::Named,
    unrecorded::Unrecorded,
};
use crate::{
    caller::Caller,
    ids::{CallId, Principal, ServerName},
    session::{Session, menu::Menu},
    tools::{Call, Operation, Reply, Seat, Tools, failure::Failure},
};

/// The tools of some servers of a session.
#[derive(Clone)]
pub(super) struct SessionHost {
    pub(super) tools: Tools,
    pub(super) session: Arc<Session>,
    pub(super) principal: Principal,
    pub(super) client: Option<Arc<str>>,
    pub(super) servers: Arc<[Named]>,
    /// The script's record.
    pub(super) record: CallId,
    pub(super) unrecorded: Unrecorded,
}

impl Host for SessionHost {
    fn call(&self, server: String, tool: String, arguments: Box<RawValue>) -> CallFuture {
        let host = self.clone();
        Box::pin(async move {
            let parsed = serde_json::from_str(arguments.get());
            drop(arguments);
            let parsed = parsed.map_err(|error| format!("the arguments of `{tool}` cannot be read: {error}"))?;
            host.make(&server, &tool, parsed).await
        })
    }
}

impl SessionHost {
    async fn make(&self, server: &str, tool: &str, arguments: Value) -> Result<Value, CallError> {
        let mut caller = Caller::internal(self.principal.clone());
        caller.client.clone_from(&self.client);
        let menu = self.tools.context.menu(&self.session, &caller).await;
        if server == "broker" {
            return self.ask(&menu, tool, &arguments).await;
        }
        let Some(server) =
            self.servers.iter().find(|known| known.variable == server || known.server.as_str() == server)
        else {
            return Err(format!("this script may not call the server `{server}`").into());
        };
        let Some(found) = tools_of(&menu, server).find(|known| known.tool.name == tool) else {
            let server = &server.server;
            return Err(format!("server `{server}` has no tool `{tool}`: broker.search finds what there is").into());
        };
        if let Some(problem) = check::problem(found, &arguments) {
            return Err(problem);
        }
        let mut params = CallToolRequestParams::new(found.exposed.clone());
        params.arguments = Some(match arguments {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            _ => return Err(format!("`{tool}` takes one object with its arguments").into()),
        });
        // When the script is over, so is what it asked for. The call itself ends in its own time, with its record.
        let _over: DropGuard = caller.cancelled.clone().drop_guard();
        let call = Call {
            seat: Seat::Fixed(self.session.clone()),
            caller,
            operation: Operation::Tool(Box::new(params)),
            parent: Some(self.record),
        };
        self.unrecorded.none().await?;
        let (tools, unrecorded) = (self.tools.clone(), self.unrecorded.clone());
        let (tell, told) = oneshot::channel();
        self.tools.tasks().spawn(async move {
            let mut closing = None;
            let closed = tools.dispatch_for_script(call, |outcome| {
                closing = Some(unrecorded.one_more());
                let _ = tell.send(seen(outcome));
            });
            let closed = closed.await;
            if let Some(closing) = closing {
                closing.ended(closed.map_err(|failure| failure.text().to_owned()));
            }
        });
        Ok(told.await.unwrap_or_else(|_| Err("the call ended by an error in the broker".to_owned()))?)
    }

    /// What scripts ask of the broker itself.
    async fn ask(&self, menu: &Menu, what: &str, arguments: &Value) -> Result<Value, CallError> {
        let text = |key: &str| arguments.get(key).and_then(Value::as_str).unwrap_or_default();
        let servers: Vec<ServerName> = self.servers.iter().map(|named| named.server.clone()).collect();
        let learned = self.tools.context.learned_types(&servers).await;
        let callable = Callable { menu, servers: &self.servers, learned: &learned };
        match what {
            "search" => Ok(callable.search(text("query"))),
            "describe" => callable.describe(text("name")).ok_or_else(|| {
                "there is no such tool: name it as `server.tool`, or use broker.search".to_owned().into()
            }),
            other => Err(format!("the broker has no `{other}` for scripts").into()),
        }
    }
}

/// What came of a call, as a script sees it.
fn seen(outcome: Result<&Reply, &Failure>) -> Result<Value, String> {
    match outcome {
        Ok(Reply::CallToolResult(result)) => value_of(result),
        Ok(_) => Err("the tool asks a question, which a script cannot answer: call it directly".to_owned()),
        Err(failure) => Err(failure.text().to_owned()),
    }
}

/// A result as a script sees it: structured content, else text that is JSON, else text, else what there is.
fn value_of(result: &CallToolResult) -> Result<Value, String> {
    let texts: Vec<&str> =
        result.content.iter().filter_map(|block| block.as_text()).map(|block| block.text.as_str()).collect();
    if result.is_error == Some(true) {
        return Err(texts.join("\n"));
    }
    if let Some(structured) = &result.structured_content {
        return Ok(structured.clone());
    }
    if texts.len() < result.content.len() {
        return serde_json::to_value(&result.content).map_err(|error| error.to_string());
    }
    let text = texts.join("\n");
    Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
