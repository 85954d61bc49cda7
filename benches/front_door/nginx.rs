//! An nginx beside the gateway.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::{port, wait};

/// An nginx of our own, ended when dropped.
pub struct Nginx {
    pub child: Child,
    pub port: u16,
    _dir: tempfile::TempDir,
}

impl Nginx {
    pub fn start(workers: usize, http: &str) -> Self {
        Self::with_descriptors(workers, 1024, http)
    }

    /// Each worker may have so many descriptors.
    pub fn with_descriptors(workers: usize, descriptors: u64, http: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (own, port) = (dir.path().display(), port::private());
        let text = format!(
            "daemon off;\nworker_processes {workers};\nworker_rlimit_nofile {descriptors};\npid {own}/pid;\nerror_log stderr warn;\nevents {{ worker_connections {descriptors}; }}\n\
             http {{\n access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;\n\
             client_body_temp_path {own}/b; proxy_temp_path {own}/p; fastcgi_temp_path {own}/f; uwsgi_temp_path {own}/u; scgi_temp_path {own}/s;\n\
             {}\n}}\n",
            http.replace("PORT", &port.to_string())
        );
        let conf = dir.path().join("nginx.conf");
        fs::write(&conf, text).unwrap();
        let program = if Path::new("/usr/sbin/nginx").exists() {
            "/usr/sbin/nginx"
        } else {
            "nginx"
        };
        let child = Command::new(program)
            .args(["-e", "stderr", "-c"])
            .arg(&conf)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait::until("nginx listens", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self {
            child,
            port,
            _dir: dir,
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            Signal::SIGTERM,
        );
        let _ = self.child.wait();
    }
}
