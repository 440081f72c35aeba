//! Telling connected clients what changed.

use std::sync::Arc;

use rmcp::{
    Peer, RoleServer,
    model::{ErrorData, LoggingMessageNotificationParam, ResourceUpdatedNotificationParam},
    service::{ServiceError, SubscriptionContext, SubscriptionSendError, SubscriptionSink},
};
use tokio::sync::{broadcast::error::RecvError, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    caller::Caller,
    session::{Change, Session},
    supervisor::calls::severity,
    tools::{Seat, Tools, follow::Following},
};

/// Tells a client of a revision up to 2025-11-25, for as long as it is connected.
pub(super) fn start(tools: &Tools, session: &Arc<Session>, peer: Peer<RoleServer>, stop: CancellationToken) {
    let mut changes = session.changes();
    let mut features = tools.features().changes();
    let session = Arc::downgrade(session);
    tools.tasks().spawn(async move {
        loop {
            let told = tokio::select! {
                () = stop.cancelled() => return,
                changed = features.changed() => match changed {
                    Ok(()) => peer.notify_tool_list_changed().await,
                    Err(_) => return,
                },
                change = changes.recv() => {
                    let Some(session) = session.upgrade() else { return };
                    match change {
                        Ok(Change::Ended) | Err(RecvError::Closed) => return,
                        Ok(change) => tell(&peer, &session, change).await,
                        Err(RecvError::Lagged(_)) => tell_everything(&peer).await,
                    }
                }
            };
            if told.is_err() {
                return;
            }
        }
    });
}

async fn tell(peer: &Peer<RoleServer>, session: &Session, change: Change) -> Result<(), ServiceError> {
    match change {
        Change::Tools => peer.notify_tool_list_changed().await,
        Change::Prompts => peer.notify_prompt_list_changed().await,
        Change::Resources => peer.notify_resource_list_changed().await,
        Change::ResourceUpdated(uri) if session.follows(&uri) => {
            peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await
        }
        Change::Log { server, message } if is_wanted(session, &message) => {
            peer.notify_logging_message(from_server(message, server.as_str())).await
        }
        Change::ResourceUpdated(_) | Change::Log { .. } | Change::TokenChanged | Change::Ended => Ok(()),
    }
}

async fn tell_everything(peer: &Peer<RoleServer>) -> Result<(), ServiceError> {
    peer.notify_tool_list_changed().await?;
    peer.notify_prompt_list_changed().await?;
    peer.notify_resource_list_changed().await
}

/// Until a client says which messages it wants, it gets all of them, as the older revisions have it.
fn is_wanted(session: &Session, message: &LoggingMessageNotificationParam) -> bool {
    session.log_level().is_none_or(|level| severity(message.level) >= severity(level))
}

/// The server's name is the logger, or stands before it.
fn from_server(mut message: LoggingMessageNotificationParam, server: &str) -> LoggingMessageNotificationParam {
    message.logger = Some(match message.logger {
        Some(logger) => format!("{server}/{logger}"),
        None => server.to_owned(),
    });
    message
}

/// Serves one `subscriptions/listen` of a client of revision 2026-07-28.
pub(super) async fn listen(
    tools: &Tools,
    seat: &Seat,
    caller: &Caller,
    context: &SubscriptionContext,
) -> Result<(), ErrorData> {
    let session = match seat {
        Seat::Fixed(session) => Some(session.clone()),
        Seat::Handle(principal) if tools.sessions().has_fixed() => {
            Some(tools.sessions().of_principal(principal).await.map_err(super::errors::session_error)?)
        }
        Seat::Handle(_) => None,
    };
    let mut following: Vec<Following> = Vec::new();
    if let Some(session) = &session {
        tools.warm(session, caller);
        for uri in context.accepted().resource_subscriptions.iter().flatten() {
            if let Ok((followed, _)) = tools.follow(session, uri, caller).await {
                following.push(followed);
            }
        }
    }
    forward(session.as_ref(), tools.features().changes(), context).await;
    drop(following);
    Ok(())
}

async fn forward(session: Option<&Arc<Session>>, mut features: watch::Receiver<u64>, context: &SubscriptionContext) {
    let mut changes = session.map(|session| session.changes());
    let sink = context.sink();
    loop {
        let change = async {
            match &mut changes {
                Some(changes) => changes.recv().await,
                None => std::future::pending().await,
            }
        };
        let told = tokio::select! {
            () = context.cancelled() => return,
            changed = features.changed() => match changed {
                Ok(()) => sink.notify_tool_list_changed().await,
                Err(_) => return,
            },
            change = change => match change {
                Ok(Change::Ended) | Err(RecvError::Closed) => return,
                Ok(change) => announce(sink, change).await,
                Err(RecvError::Lagged(_)) => announce_everything(sink).await,
            },
        };
        if matches!(told, Err(SubscriptionSendError::SubscriptionClosed | SubscriptionSendError::Service(_))) {
            return;
        }
    }
}

/// What the client did not ask for is refused by the sink, which is not an error here.
async fn announce(sink: &SubscriptionSink, change: Change) -> Result<(), SubscriptionSendError> {
    match change {
        Change::Tools => sink.notify_tool_list_changed().await,
        Change::Prompts => sink.notify_prompt_list_changed().await,
        Change::Resources => sink.notify_resource_list_changed().await,
        Change::ResourceUpdated(uri) => sink.notify_resource_updated(uri).await,
        Change::Log { .. } | Change::TokenChanged | Change::Ended => Ok(()),
    }
}

async fn announce_everything(sink: &SubscriptionSink) -> Result<(), SubscriptionSendError> {
    for change in [Change::Tools, Change::Prompts, Change::Resources] {
        if let Err(SubscriptionSendError::SubscriptionClosed) = announce(sink, change).await {
            return Err(SubscriptionSendError::SubscriptionClosed);
        }
    }
    Ok(())
}
