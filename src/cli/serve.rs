//! `mcp-broker serve`.

use std::{process::ExitCode, sync::Arc};

use super::{Global, ServeArgs, output};
use crate::{
    app::{App, DataFolder},
    clock::SystemClock,
    config::{Overrides, Settings},
    http::Listener,
    lifecycle::{Shards, Signals, StopReason, Tasks},
};

pub(super) async fn run(global: &Global, args: ServeArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(Overrides {
        listen: args.listen,
        catalogs: args.broker.catalog,
        servers: args.broker.server,
        profiles: args.broker.profile,
        compose: args.broker.compose,
        allowed_hosts: args.allowed_hosts,
        allowed_origins: args.allowed_origins,
        no_auth: args.no_auth,
        pull: args.broker.pull,
        ..global.overrides()
    })?;
    let mut signals = Signals::listen()?;
    let shards = Shards::start()?;
    let (tasks, mut crashes) = Tasks::spread_over(&shards);
    let folder = DataFolder::take(&settings.data_folder)?;
    let listener = Listener::bind(settings.http.clone()).await?;
    let app = App::open(settings, folder, Arc::new(SystemClock), tasks).await?;
    announce(&app, &listener);
    app.serve_socket()?;
    app.serve_http(listener);
    app.start_background();
    let reason = tokio::select! {
        () = signals.next() => StopReason::Asked,
        service = crashes.next() => StopReason::Crashed(service),
    };
    app.stop(signals.next()).await;
    Ok(match reason {
        StopReason::Asked => ExitCode::SUCCESS,
        StopReason::Crashed(service) => {
            tracing::error!(service, "the broker stopped because a part of it ended unasked");
            ExitCode::FAILURE
        }
    })
}

/// What a person or a program that started the broker needs to connect. The token is in its file only.
fn announce(app: &App, listener: &Listener) {
    let address = listener.address();
    output::say(format!("mcp-broker is listening on http://{address}/mcp"));
    if app.settings.http.authenticate {
        output::say(format!("token: in {}", app.settings.data_folder.join("token").display()));
    } else {
        output::say("token: none is asked for (--no-auth)");
    }
    let snapshot = app.catalog.snapshot();
    output::say(format!("catalog: {} servers, {} problems", snapshot.len(), snapshot.problems().len()));
}
