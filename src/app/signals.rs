//! What the operating system tells the program to do.

use std::io;

use tokio::{
    signal::unix::{self, SignalKind},
    sync::mpsc,
};

/// One wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: finish what is open and end.
    Stop,
    /// SIGHUP: load the configuration again.
    Reload,
    /// SIGUSR1: open log files again (after rotation).
    Reopen,
}

/// Where wishes come from: the operating system, or whoever embeds the program.
#[derive(Debug)]
pub enum Signals {
    /// Signals of the process.
    System {
        /// SIGTERM.
        terminate: unix::Signal,
        /// SIGINT.
        interrupt: unix::Signal,
        /// SIGHUP.
        hangup: unix::Signal,
        /// SIGUSR1.
        user: unix::Signal,
    },
    /// A channel; closing it means stop.
    Channel(mpsc::Receiver<Signal>),
}

/// Listens to the signals of this process from now on.
pub fn signals() -> io::Result<Signals> {
    Ok(Signals::System {
        terminate: unix::signal(SignalKind::terminate())?,
        interrupt: unix::signal(SignalKind::interrupt())?,
        hangup: unix::signal(SignalKind::hangup())?,
        user: unix::signal(SignalKind::user_defined1())?,
    })
}

impl Signals {
    /// The next wish.
    pub async fn next(&mut self) -> Signal {
        match self {
            Self::System {
                terminate,
                interrupt,
                hangup,
                user,
            } => tokio::select! {
                _ = terminate.recv() => Signal::Stop,
                _ = interrupt.recv() => Signal::Stop,
                _ = hangup.recv() => Signal::Reload,
                _ = user.recv() => Signal::Reopen,
            },
            Self::Channel(wishes) => wishes.recv().await.unwrap_or(Signal::Stop),
        }
    }
}
