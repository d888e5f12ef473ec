//! The core without a recording.

use std::path::Path;

use tokio::sync::oneshot;

use super::*;
use crate::daemon::config::Sources;

/// Runs a test with a core whose configuration is the file `daemon.toml` of a directory: what is in `text`, and a store.
fn with_core(text: &str, test: impl AsyncFnOnce(Core, &Path)) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let file = directory.path().join("daemon.toml");
        std::fs::write(&file, text).unwrap();
        let store = directory.path().join("store").to_str().unwrap().to_owned();
        let flags = vec![("store.directory".to_owned(), store)];
        let sources = Sources { file: Some(file.clone()), environment: Vec::new(), flags };
        let config = Config::load(sources).unwrap();
        test(Core::new(config, false, Signals::new().unwrap()).unwrap(), &file).await;
    });
}

#[test]
fn who_is_told_to_stop_does_not_begin_again_by_itself() {
    with_core("", async |mut core, _| {
        let state = Arc::clone(&core.state);
        let client = async {
            let (reply, answer) = oneshot::channel();
            state.commands.send(Command::Stop(reply)).await.unwrap();
            answer.await.unwrap().unwrap();
            assert_eq!(state.status().phase, Phase::Paused);
            let (reply, answer) = oneshot::channel();
            state.commands.send(Command::Start(reply)).await.unwrap();
            answer.await.unwrap().unwrap();
        };
        let retry = Instant::now() + Duration::from_secs(3600);
        assert!(tokio::join!(core.pause(Some(retry)), client).0);
    });
}
