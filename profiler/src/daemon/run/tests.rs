//! The core without a recording.

use std::{collections::BTreeMap, path::Path};

use tokio::sync::oneshot;

use super::*;
use crate::{daemon::config::Sources, model::Cost};

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

fn written(number: u64) -> Done {
    Done {
        number,
        end_unix_ns: 1,
        problem: None,
        notes: Vec::new(),
        store_bytes: 1,
        cost: Cost::default(),
        losses: BTreeMap::new(),
        series: 1,
    }
}

#[test]
fn a_refused_configuration_is_told_until_another_is_used() {
    with_core("[metrics]\nmax_series = 5\n", async |mut core, file| {
        std::fs::write(file, "[metrics]\nmax_series = 0\n").unwrap();
        assert!(matches!(core.reload(), Reload::Elsewhere));
        core.done(written(1));
        let trouble = core.state.status().trouble.unwrap();
        assert!(trouble.contains("daemon.toml:2: metrics.max_series"), "{trouble}");
        std::fs::write(file, "[metrics]\nmax_series = 1\n").unwrap();
        assert!(matches!(core.reload(), Reload::Elsewhere));
        assert_eq!((core.state.status().trouble, core.config.metrics.max_series), (None, 1));
        core.state.window(&crate::store::tests::windows::simple(1)[0], true);
        assert_eq!(core.state.registry.series(), 1);
    });
}
