//! What a container may reach while the operator has closed the network: the hosts that its entry names, and no others.
//!
//! Such a container has no network but a loopback of its own. Its `/etc/hosts` leads each host's name to an address there,
//! where the broker listens: it opens those sockets from inside the container's network namespace, and carries what comes
//! in to the real host from outside. So it is the kernel that keeps everything else away. Programs need no settings for
//! it, and what they encrypt stays encrypted. Names that the container looks up itself lead nowhere.
//!
//! Entering a namespace takes CAP_SYS_ADMIN on the engine's machine. A broker that may not do that refuses the container.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{
    io::InspectReader,
    sync::{CancellationToken, DropGuard},
};

use crate::{lifecycle::Tasks, supervisor::tail::Tail};

/// Hosts that one container may have.
const HOSTS_MAX: usize = 200;

/// Connections that one container may have at a time.
const CONNECTIONS_MAX: usize = 128;

const CONNECT_MAX: Duration = Duration::from_secs(20);

/// A connection on which nothing has come from either side for so long is ended, at the latest after twice that.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// How long after a failure a connection is waited for again. The broker may have had no file to spare for it.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Failures in a row after which a listener is taken to be gone: five minutes of them.
const ACCEPT_FAILURES_MAX: usize = 3000;

/// A container cannot be held to the hosts that it is to reach.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error(
        "it wants to reach `{host}`, and while the operator has closed the network only a name and a port can be opened (`example.com:443`)"
    )]
    Unclear { host: String },
    #[error("it wants to reach more than {HOSTS_MAX} hosts, and the operator has closed the network")]
    TooMany,
    #[error(
        "it wants to reach {hosts}, the operator has closed the network otherwise (containers.block_network), and the broker may not hold it to that: this takes CAP_SYS_ADMIN on the engine's machine"
    )]
    NotAllowed {
        hosts: String,
        #[source]
        source: io::Error,
    },
}

/// The hosts that a container may reach.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gate {
    doors: Vec<Door>,
}

/// One host and port, and where the container finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Door {
    host: String,
    port: u16,
    /// Where the entry says that the host is, if it does.
    known: Option<IpAddr>,
    address: Ipv4Addr,
}

/// An open gate. Dropping it ends every connection through it.
pub(super) struct OpenGate {
    _closes: DropGuard,
}

impl Gate {
    /// Reads `host:port`s, and `name:address`es that say where some of them are.
    pub(super) fn new(allowed: &[String], known: &[String]) -> Result<Self, GateError> {
        let mut doors: Vec<Door> = Vec::new();
        for text in allowed {
            let (host, port) = host_and_port(text).ok_or_else(|| GateError::Unclear { host: text.clone() })?;
            if doors.iter().any(|door| door.host == host && door.port == port) {
                continue;
            }
            let same = doors.iter().find(|door| door.host == host).map(|door| door.address);
            let number = doors.len() + 1;
            let last = u8::try_from(number).ok().filter(|_| number <= HOSTS_MAX).ok_or(GateError::TooMany)?;
            let is_same = |name: &&str| name.eq_ignore_ascii_case(&host);
            let known = known.iter().filter_map(|line| line.split_once(':')).find(|(name, _)| is_same(name));
            let known = known.and_then(|(_, address)| address.parse().ok());
            doors.push(Door { host, port, known, address: same.unwrap_or(Ipv4Addr::new(127, 77, 0, last)) });
        }
        Ok(Self { doors })
    }

    /// The lines of the container's hosts file, with those of `others` that are not about the same hosts.
    pub(super) fn hosts(&self, others: &[String]) -> Vec<String> {
        let is_ours = |line: &&String| {
            line.split(':')
                .next()
                .is_some_and(|name| self.doors.iter().any(|door| name.eq_ignore_ascii_case(&door.host)))
        };
        let others = others.iter().filter(|line| !is_ours(line)).cloned();
        let mut hosts: Vec<String> = others.collect();
        for door in &self.doors {
            let line = format!("{}:{}", door.host, door.address);
            if !hosts.contains(&line) {
                hosts.push(line);
            }
        }
        hosts
    }

    /// Opens it in the network namespace that is the file `namespace`.
    pub(super) async fn open(self, namespace: String, tail: &Tail, tasks: &Tasks) -> Result<OpenGate, GateError> {
        let names: Vec<String> = self.doors.iter().map(|door| format!("{}:{}", door.host, door.port)).collect();
        let addresses: Vec<_> = self.doors.iter().map(|door| SocketAddrV4::new(door.address, door.port)).collect();
        let listening = tokio::task::spawn_blocking(move || listen_in(&namespace, &addresses)).await;
        let listeners = listening
            .unwrap_or_else(|_| Err(io::Error::other("it was cut off")))
            .map_err(|source| GateError::NotAllowed { hosts: names.join(", "), source })?;
        let closed = CancellationToken::new();
        let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        for (door, listener) in self.doors.into_iter().zip(listeners) {
            let (closed, turns, tail, carriers) = (closed.clone(), turns.clone(), tail.clone(), tasks.clone());
            drop(tasks.spawn(async move {
                tokio::select! {
                    () = door.serve(&listener, turns, &tail, &carriers, &closed) => {}
                    () = closed.cancelled() => {}
                }
            }));
        }
        Ok(OpenGate { _closes: closed.drop_guard() })
    }
}

impl Door {
    async fn serve(
        &self,
        listener: &TcpListener,
        turns: Arc<Semaphore>,
        tail: &Tail,
        tasks: &Tasks,
        closed: &CancellationToken,
    ) {
        let mut failures = 0;
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    failures += 1;
                    if failures == 1 || failures == ACCEPT_FAILURES_MAX {
                        let what = format!("mcp-broker: could not take a connection to {}:{}", self.host, self.port);
                        tail.line(&format!("{what}: {error}"));
                    }
                    if failures == ACCEPT_FAILURES_MAX {
                        return;
                    }
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            failures = 0;
            // After it was accepted: a door at which nobody knocks takes no turn from the others.
            let Ok(turn) = turns.clone().acquire_owned().await else { return };
            let (door, tail, closed) = (self.clone(), tail.clone(), closed.clone());
            drop(tasks.spawn(async move {
                let _turn = turn;
                tokio::select! {
                    () = door.carry(stream, &tail) => {}
                    () = closed.cancelled() => {}
                }
            }));
        }
    }

    /// Carries a connection to the real host, and back.
    async fn carry(&self, inside: TcpStream, tail: &Tail) {
        let connecting = tokio::time::timeout(CONNECT_MAX, self.connect()).await;
        match connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(outside) => {
                if copy(inside, outside, IDLE_MAX).await == Copied::Idle {
                    tail.line(&format!("mcp-broker: ended an idle connection to {}:{}", self.host, self.port));
                }
            }
            Err(error) => tail.line(&format!("mcp-broker: could not reach {}:{}: {error}", self.host, self.port)),
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let addresses: Vec<SocketAddr> = match self.known {
            Some(address) => vec![SocketAddr::new(address, self.port)],
            None => tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect(),
        };
        let mut problem = io::Error::new(io::ErrorKind::PermissionDenied, "it is at no address that may be reached");
        for address in addresses.into_iter().filter(|address| is_elsewhere(address.ip())) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }
}

/// Why two connections are not one any more.
#[derive(Debug, PartialEq, Eq)]
enum Copied {
    /// They were closed, or failed.
    Closed,
    Idle,
}

/// Copies both ways until both sides are closed, or nothing comes from either for `idle_max`.
async fn copy<A, B>(inside: A, outside: B, idle_max: Duration) -> Copied
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let reads = AtomicU64::new(0);
    let note = |_: &[u8]| {
        reads.fetch_add(1, Ordering::Relaxed);
    };
    let (mut inside, mut outside) = (InspectReader::new(inside, note), InspectReader::new(outside, note));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut inside, &mut outside) => Copied::Closed,
        () = unchanged(&reads, idle_max) => Copied::Idle,
    }
}

/// Completes when `count` is the same as it was `limit` before.
async fn unchanged(count: &AtomicU64, limit: Duration) {
    let mut before = None;
    loop {
        let now = count.load(Ordering::Relaxed);
        if before.replace(now) == Some(now) {
            return;
        }
        tokio::time::sleep(limit).await;
    }
}

/// Whether an address is not the broker's own machine's alone, nor its provider's: a container's network leads to neither.
fn is_elsewhere(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            !(address.is_loopback() || address.is_unspecified() || address.is_link_local() || address.is_multicast())
        }
        IpAddr::V6(address) => {
            !(address.is_loopback()
                || address.is_unspecified()
                || address.is_unicast_link_local()
                || address.is_multicast())
        }
    }
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let is_part = |part: &str| {
        !part.is_empty() && part.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_'))
    };
    let is_name = host.split('.').all(is_part) && host.parse::<IpAddr>().is_err();
    // Names that every container finds at itself.
    let is_own = host.eq_ignore_ascii_case("localhost") || host.starts_with("ip6-");
    (is_name && !is_own).then(|| (host.to_ascii_lowercase(), port))
}

/// Listens in another network namespace. A thread of its own goes there, and ends there.
fn listen_in(namespace: &str, addresses: &[SocketAddrV4]) -> io::Result<Vec<TcpListener>> {
    let listen = || -> io::Result<Vec<std::net::TcpListener>> {
        enter(namespace)?;
        addresses.iter().map(std::net::TcpListener::bind).collect()
    };
    let there = std::thread::scope(|scope| scope.spawn(listen).join());
    let listeners = there.unwrap_or_else(|_| Err(io::Error::other("it was cut off")))?;
    listeners
        .into_iter()
        .map(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        })
        .collect()
}

/// Moves this thread into a network namespace.
#[cfg(target_os = "linux")]
fn enter(namespace: &str) -> io::Result<()> {
    use std::os::fd::AsFd as _;
    let namespace = std::fs::File::open(namespace)?;
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network))?)
}

#[cfg(not(target_os = "linux"))]
fn enter(_: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(allowed: &[&str], known: &[&str]) -> Result<Gate, GateError> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Gate::new(&owned(allowed), &owned(known))
    }

    #[test]
    fn each_host_has_an_address_of_its_own() {
        let known = ["b.example:192.0.2.7".to_owned(), "c.example:192.0.2.8".to_owned()];
        let gate = gate(&["a.example:443", "B.example:443", "a.example:80", "a.example:80"], &["b.example:192.0.2.7"])
            .unwrap();
        assert_eq!(gate.doors[1].known, Some("192.0.2.7".parse().unwrap()));
        assert_eq!(
            gate.hosts(&known),
            ["c.example:192.0.2.8", "a.example:127.77.0.1", "b.example:127.77.0.2"].map(str::to_owned)
        );
    }

    #[test]
    fn what_is_not_a_name_and_a_port_is_refused() {
        for host in ["*:443", "*.example.com:443", "example.com", "example.com:0", "localhost:1", "192.0.2.1:443", ":1"]
        {
            assert!(matches!(gate(&[host], &[]), Err(GateError::Unclear { .. })), "{host}");
        }
        let many: Vec<String> = (0..300).map(|number| format!("h{number}.example:1")).collect();
        assert!(matches!(Gate::new(&many, &[]), Err(GateError::TooMany)));
    }

    #[tokio::test]
    async fn a_connection_is_ended_when_it_is_idle_or_closed() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let ((mut here, inside), (outside, mut there)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        let talking = async {
            here.write_all(b"question").await.unwrap();
            let mut heard = [0; 8];
            there.read_exact(&mut heard).await.unwrap();
            heard
        };
        let (copied, heard) = tokio::join!(copy(inside, outside, Duration::from_millis(50)), talking);
        assert_eq!((copied, &heard), (Copied::Idle, b"question"));

        let ((here, inside), (outside, there)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        drop((here, there));
        assert_eq!(copy(inside, outside, Duration::from_secs(600)).await, Copied::Closed);
    }

    #[test]
    fn the_brokers_own_machine_is_not_elsewhere() {
        for (address, expected) in [
            ("127.0.0.1", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
            ("fe80::1", false),
            ("10.0.0.1", true),
            ("192.0.2.1", true),
        ] {
            assert_eq!(is_elsewhere(address.parse().unwrap()), expected, "{address}");
        }
    }
}
