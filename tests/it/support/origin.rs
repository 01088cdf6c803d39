//! A service to stand behind the gate: answers the status its path asks for and remembers what
//! it saw.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// `GET /status/404` is answered 404, everything else 200. Keep-alive.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Request line.
    pub line: String,
    /// Header lines as sent.
    pub headers: Vec<(String, String)>,
    /// Body, by its Content-Length.
    pub body: Vec<u8>,
}

impl Seen {
    /// Every value of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

impl Origin {
    /// Starts it on a free port; it runs until the test process ends.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sink = sink.clone();
                std::thread::spawn(move || serve(stream, &sink));
            }
        });
        Self { address, seen }
    }

    /// Everything seen so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Seen>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let mut request = Seen {
            line: line.trim_end().to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let Some((name, value)) = header.split_once(':') else {
                break;
            };
            request
                .headers
                .push((name.to_owned(), value.trim().to_owned()));
        }
        let length = request.all("content-length").first().map(|v| v.parse());
        if let Some(Ok(length)) = length {
            request.body = vec![0; length];
            reader.read_exact(&mut request.body).ok()?;
        }
        let answer = answer(&request);
        seen.lock().unwrap().push(request);
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

fn answer(request: &Seen) -> String {
    let path = request.line.split(' ').nth(1).unwrap_or("/");
    let status: u16 = path
        .strip_prefix("/status/")
        .and_then(|rest| rest.split(['?', '/']).next()?.parse().ok())
        .unwrap_or(200);
    let body = if request.line.starts_with("HEAD ") {
        ""
    } else {
        "hello\n"
    };
    format!("HTTP/1.1 {status} X\r\nContent-Length: 6\r\n\r\n{body}")
}
