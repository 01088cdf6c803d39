//! Clients that fail, as many as can be, against a program that may be killed at any moment.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

const WORKERS: u64 = 4;
/// What it lost on its rate for longer, while the machine was busy, it does not make good.
const PATIENCE: Duration = Duration::from_millis(200);

/// A load that runs until it is ended. Every client is a new one, by X-Forwarded-For.
pub struct Flood {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Flood {
    /// Each client asks for `path` so many times; `next` numbers the clients, from 11.0.0.0 on. At
    /// most `rate` clients a second.
    pub fn start(
        address: SocketAddr,
        path: &str,
        times: usize,
        rate: u32,
        next: &Arc<AtomicU32>,
    ) -> Self {
        let every = Duration::from_secs(WORKERS) / rate;
        let stop = Arc::new(AtomicBool::new(false));
        let worker = || {
            let (stop, next, path) = (stop.clone(), next.clone(), path.to_owned());
            std::thread::spawn(move || {
                // It ends when the program does.
                let _ = fail(address, &path, times, every, &next, &stop);
            })
        };
        let workers = (0..WORKERS).map(|_| worker()).collect();
        Self { stop, workers }
    }

    /// Ends it.
    pub fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.join().expect("no panic");
        }
    }
}

fn fail(
    address: SocketAddr,
    path: &str,
    times: usize,
    every: Duration,
    next: &AtomicU32,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let (began, mut due) = (Instant::now(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        due = (due + every).max(began.elapsed().saturating_sub(PATIENCE));
        let client = Ipv4Addr::from(0x0b00_0000 + next.fetch_add(1, Ordering::Relaxed));
        for _ in 0..times {
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\n\r\n"
            )?;
            let mut length = 0;
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if answers.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                let header = line.to_ascii_lowercase();
                if let Some(rest) = header.strip_prefix("content-length:") {
                    length = rest.trim().parse().unwrap_or(0);
                }
            }
            std::io::copy(&mut answers.by_ref().take(length), &mut std::io::sink())?;
        }
    }
    Ok(())
}
