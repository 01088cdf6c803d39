//! A gate on port 0, a service behind it that says what it got, and a client that sends bytes as
//! they are.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    config::{Address, Config},
    engine::{Engine, Limits, nets::NetSet},
    gate::{Gate, Left, Site, bind, doors},
    proxy::Routing,
    tasks::Tasks,
    telemetry::Metrics,
    time::{Clock, Millis},
};

/// Long enough for any machine, short enough to notice that nothing comes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A configuration in force, without sockets.
pub fn site(yaml: &str) -> Site {
    let config = config(yaml);
    let engine = engine(&config, Clock::start());
    let routing = Arc::new(Routing::build(&config, None).unwrap());
    Site::build(
        &config,
        doors(&config).unwrap(),
        engine,
        Arc::default(),
        routing,
    )
}

pub fn config(yaml: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jailgate.yaml");
    std::fs::write(&file, yaml).unwrap();
    Config::load(&file).unwrap_or_else(|problems| panic!("{problems}"))
}

fn engine(config: &Config, clock: Clock) -> Arc<Engine> {
    let limits = Limits {
        tracked_clients: 1_000,
        bans: 1_000,
        aggregate_ipv6: false,
    };
    let engine = Engine::new(limits, 7);
    let specs = config.jails.iter().map(|jail| jail.spec.clone()).collect();
    engine.configure(specs, NetSet::default(), clock.now());
    Arc::new(engine)
}

/// A gate that serves.
pub struct Running {
    pub addresses: Vec<Address>,
    pub engine: Arc<Engine>,
    gate: Gate,
    tasks: Tasks,
}

impl Running {
    /// Two workers, so that nothing can count on there being one.
    pub fn start(yaml: &str) -> Self {
        let config = config(yaml);
        let clock = Clock::start();
        let engine = engine(&config, clock);
        let routing = Arc::new(Routing::build(&config, None).unwrap());
        let metrics = Arc::new(Metrics::new());
        let site = Site::build(
            &config,
            doors(&config).unwrap(),
            engine.clone(),
            metrics,
            routing,
        );
        let opened = bind(&config, 2).unwrap();
        let addresses = opened.addresses().into_iter().map(|(_, at)| at).collect();
        let tasks = Tasks::new();
        let gate = opened.run(&site, clock, &tasks).unwrap();
        Self {
            addresses,
            engine,
            gate,
            tasks,
        }
    }

    pub fn address(&self) -> SocketAddr {
        match self.addresses[0] {
            Address::Tcp(address) => address,
            Address::Unix(_) => panic!("a unix socket"),
        }
    }

    pub fn reload(&self, yaml: &str) {
        let config = config(yaml);
        let routing = Arc::new(Routing::build(&config, None).unwrap());
        let site = Site::build(
            &config,
            doors(&config).unwrap(),
            self.engine.clone(),
            Arc::default(),
            routing,
        );
        self.gate.reload(&site);
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    pub fn stop(&self) {
        self.tasks.stopping().cancel();
    }

    pub async fn drained(self) -> Left {
        self.stop();
        self.gate.drained().await
    }
}

/// A client that sends what it is told.
pub struct Client(pub TcpStream);

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The gate may have closed already, which is what some tests look for.
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Everything until the gate closes.
    pub async fn read_all(&mut self) -> String {
        let mut all = Vec::new();
        let read = self.0.read_to_end(&mut all);
        let done = tokio::time::timeout(PATIENCE, read).await;
        let _ = done.expect("the gate did not close the connection");
        String::from_utf8_lossy(&all).into_owned()
    }

    /// One response with `Content-Length`, or without a body.
    pub async fn read_response(&mut self) -> String {
        let mut all = Vec::new();
        let read = async {
            loop {
                let text = String::from_utf8_lossy(&all).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n")
                    && body.len() >= content_length(head)
                {
                    return text;
                }
                if self.0.read_buf(&mut all).await.unwrap_or(0) == 0 {
                    return text;
                }
            }
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("no whole response came")
    }

    pub async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.send(bytes).await;
        self.read_response().await
    }
}

/// The shortest of three, so that a busy machine is not taken for a late answer. `once` answers
/// when it had its answer.
pub async fn shortest(clock: Clock, mut once: impl AsyncFnMut() -> Millis) -> Millis {
    let mut best = Millis::MAX;
    for _ in 0..3 {
        let begun = clock.now();
        best = best.min(once().await - begun);
    }
    best
}

/// What a response's first line says.
#[track_caller]
pub fn status(response: &str) -> u16 {
    let status = response.split(' ').nth(1);
    status
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no status: {response:?}"))
}

/// A service that answers every request on a connection by `answer(head)`, and notes what it got.
pub struct Service {
    pub address: SocketAddr,
    pub heads: Arc<parking_lot::Mutex<Vec<String>>>,
}

impl Service {
    /// `answer` takes a request's head and gives the whole response. Bodies are read when they
    /// have a length or are chunked, and noted after their head.
    pub async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::slow(Duration::ZERO, answer).await
    }

    /// The same, a while later.
    pub async fn slow(
        delay: Duration,
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let noted = heads.clone();
        let answer = Arc::new(answer);
        Tasks::new().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (noted, answer) = (noted.clone(), answer.clone());
                Tasks::new()
                    .spawn(async move { answer_all(stream, &noted, delay, &*answer).await });
            }
        });
        Self { address, heads }
    }

    pub fn requests(&self) -> usize {
        self.heads.lock().len()
    }
}

async fn answer_all(
    mut stream: TcpStream,
    noted: &parking_lot::Mutex<Vec<String>>,
    delay: Duration,
    answer: &(dyn Fn(&str) -> String + Send + Sync),
) {
    let mut read = Vec::new();
    loop {
        let whole = loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some(length) = message_length(&text) {
                break text[..length].to_owned();
            }
            match stream.read_buf(&mut read).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        read.drain(..whole.len());
        let response = answer(&whole);
        noted.lock().push(whole);
        tokio::time::sleep(delay).await;
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn message_length(text: &str) -> Option<usize> {
    let head = text.find("\r\n\r\n")? + 4;
    let lower = text[..head].to_lowercase();
    if lower.contains("\r\ntransfer-encoding: chunked") {
        return text[head..].find("0\r\n\r\n").map(|end| head + end + 5);
    }
    let length = content_length(&lower);
    (text.len() >= head + length).then_some(head + length)
}

/// What a head says of its body, 0 when it says nothing.
pub fn content_length(head: &str) -> usize {
    let head = head.to_lowercase();
    let mut lines = head.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length: "));
    length.map_or(0, |length| length.parse().unwrap())
}

/// An empty answer.
pub fn empty(status: u16) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")
}
