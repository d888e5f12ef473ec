//! The daemon's side of the control socket.

use std::{io, sync::Arc, time::Duration};

use rustix::process::geteuid;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::{Semaphore, oneshot},
    time::timeout,
};

use super::{Answer, Command, MAX_REQUEST, Reply, Request, VERSION, Verb};
use crate::{
    daemon::{socket::Bound, state::State},
    model::when::unix_ns,
};

/// Connections at a time; more wait in the kernel.
const MAX_CONNECTIONS: usize = 8;

/// Longest time for a client to send its line, and to take the answer.
const CLIENT_TIME: Duration = Duration::from_secs(5);

/// Longest time for the core to do what it is told: a window that is written to a slow disk.
const CORE_TIME: Duration = Duration::from_secs(60);

/// Answers at the socket, for as long as it is polled.
pub async fn serve(bound: Bound, state: Arc<State>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match bound.listener.accept().await {
            Ok((stream, _)) => {
                let state = Arc::clone(&state);
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, &state).await {
                        log::debug!("control socket: {error}");
                    }
                    drop(permit);
                });
            }
            // Out of files, mostly: others may be closed by then.
            Err(error) => {
                log::warn!("control socket: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(mut stream: UnixStream, state: &State) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (reader, mut writer) = stream.split();
    let answer = match may(uid, geteuid().as_raw()) {
        false => Err(format!("user {uid} may not control this daemon: root and its own user may")),
        true => {
            let mut line = Vec::new();
            let mut reader = BufReader::new(reader.take(MAX_REQUEST as u64 + 1));
            timeout(CLIENT_TIME, reader.read_until(b'\n', &mut line)).await??;
            match read(&line) {
                Ok(request) => answer(request.command, state).await,
                Err(error) => Err(error),
            }
        }
    };
    let mut line = serde_json::to_vec(&Answer::from(answer))?;
    line.push(b'\n');
    timeout(CLIENT_TIME, writer.write_all(&line)).await?
}

/// Who may control the daemon.
const fn may(uid: u32, own: u32) -> bool {
    uid == 0 || uid == own
}

fn read(line: &[u8]) -> Result<Request, String> {
    let Some(line) = line.strip_suffix(b"\n") else {
        return Err(format!("a request is one line of at most {MAX_REQUEST} bytes"));
    };
    let request: Request = serde_json::from_slice(line).map_err(|error| format!("no request: {error}"))?;
    match request.version {
        VERSION => Ok(request),
        other => Err(format!("version {other} is not known; this daemon speaks version {VERSION}")),
    }
}

async fn answer(verb: Verb, state: &State) -> Result<Option<Value>, String> {
    match verb {
        Verb::Start => tell(state, Command::Start).await.map(|()| None),
        Verb::Stop => tell(state, Command::Stop).await.map(|()| None),
        Verb::Flush => tell(state, Command::Flush).await.map(|window| Some(json!({ "window": window }))),
        Verb::Reset => {
            state.registry.reset(unix_ns());
            Ok(None)
        }
        Verb::Status => Ok(Some(status(state))),
    }
}

/// Tells the core, and waits for what it says.
async fn tell<T>(state: &State, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, String> {
    let (reply, answer) = oneshot::channel();
    state
        .commands
        .try_send(command(reply))
        .map_err(|_| "the daemon is busy with other commands".to_owned())?;
    match timeout(CORE_TIME, answer).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err("the daemon is stopping".to_owned()),
        Err(_) => Err(format!("the daemon has not done it within {} s", CORE_TIME.as_secs())),
    }
}

/// The status as JSON, schema `profiler.status/1`.
fn status(state: &State) -> Value {
    let status = state.status();
    json!({
        "schema": "profiler.status/1",
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "state": status.phase,
        "trouble": status.trouble,
        "windows": {
            "last": status.last_window,
            "written": status.own.windows_written,
            "not_kept": status.own.windows_not_kept,
            "last_unix_ns": status.own.last_window_unix_ns,
        },
        "store": { "directory": state.store.to_string_lossy(), "bytes": status.own.store_bytes },
        "governor": {
            "step": status.own.governor_step,
            "changes": status.own.governor_changes,
            "why": status.governor,
            "frequency_hz": status.rates.frequency_hz,
            "min_block_ns": status.rates.min_block_ns,
            "blocked_every": status.rates.blocked_every,
            "stack_depth": status.rates.stack_depth,
        },
        "cost": {
            "ebpf_run_ns": status.own.ebpf_run_ns,
            "ebpf_runs": status.own.ebpf_runs,
            "user_cpu_ns": status.own.user_cpu_ns,
            "system_cpu_ns": status.own.system_cpu_ns,
            "rss_bytes": status.own.rss_bytes,
            "map_bytes": status.own.map_bytes,
        },
        "losses": status.own.losses,
        "started_unix_ns": status.own.started_unix_ns,
        "metrics_series": state.registry.series(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use proptest::prelude::*;
    use tokio::sync::mpsc;

    use super::*;
    use crate::daemon::{control::ask, state::Status};

    /// A daemon whose core is this test: pauses, refuses to go on, and flushes window 7.
    fn with_daemon<T: Send + 'static>(client: impl FnOnce(&std::path::Path) -> T + Send + 'static) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        runtime.block_on(async {
            let (state, commands) = State::new("/store".into(), Duration::from_secs(10), 10);
            state.publish(Status { last_window: 6, ..Status::default() });
            let server = tokio::spawn(serve(Bound::listen(&path).unwrap(), Arc::new(state)));
            let core = tokio::spawn(core(commands));
            let result = tokio::task::spawn_blocking(move || client(&path)).await.unwrap();
            server.abort();
            core.abort();
            result
        })
    }

    async fn core(mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Start(reply) => reply.send(Err("no".into())).unwrap(),
                Command::Stop(reply) => reply.send(Ok(())).unwrap(),
                Command::Flush(reply) => reply.send(Ok(7)).unwrap(),
                Command::Profile(..) => panic!("nobody asks for it here"),
            }
        }
    }

    #[test]
    fn each_command_has_its_answer() {
        with_daemon(|path| {
            assert_eq!(ask(path, Verb::Stop).unwrap(), None);
            assert_eq!(ask(path, Verb::Start).unwrap_err().to_string(), "no");
            assert_eq!(ask(path, Verb::Flush).unwrap(), Some(json!({ "window": 7 })));
            assert_eq!(ask(path, Verb::Reset).unwrap(), None);
            let status = ask(path, Verb::Status).unwrap().unwrap();
            assert_eq!(status["schema"], "profiler.status/1");
            assert_eq!((&status["state"], &status["windows"]["last"]), (&json!("starting"), &json!(6)));
        });
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        let answers = with_daemon(|path| {
            let path = path.to_owned();
            let ask = move |line: &[u8]| {
                let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
                stream.write_all(line).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut answer = String::new();
                // What is sent beyond the longest line is not read, which resets the connection.
                _ = stream.read_to_string(&mut answer);
                answer
            };
            [
                ask(b"{\"version\":1,\"command\":\"flush\",\"x\":1}\n"),
                ask(b"{\"version\":2,\"command\":\"flush\"}\n"),
                ask(b"{\"version\":1,\"command\":\"flush\"}"),
                ask(&[b'x'; MAX_REQUEST + 1]),
            ]
        });
        for (answer, error) in
            answers.iter().zip(["unknown field `x`", "version 2 is not known", "is one line", "is one line"])
        {
            assert!(answer.starts_with("{\"version\":1,\"ok\":false,") && answer.contains(error), "{answer}");
        }
    }

    #[test]
    fn root_and_the_own_user_may() {
        assert!(may(0, 500) && may(500, 500) && !may(501, 500) && !may(500, 0));
    }

    proptest! {
        #[test]
        fn any_line_is_a_request_or_an_error(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            _ = read(&line);
        }
    }
}
