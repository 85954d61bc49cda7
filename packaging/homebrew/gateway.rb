# packaging/build formula fills in what stands between at signs.
class Gateway < Formula
  desc "Restarts the server behind it without losing a request"
  homepage "@HOMEPAGE@"
  url "@URL@"
  version "@VERSION@"
  sha256 "@SHA256@"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args
    man5.install Dir["man/*.5"]
    man7.install Dir["man/*.7"]
    man8.install Dir["man/*.8"]
    generate_completions_from_executable(bin/"gatewayctl", "completions", shells: [:bash, :zsh, :fish])
  end

  test do
    port = free_port
    (testpath/"index.html").write "served"
    server = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "{port}"]
    pid = spawn bin/"gateway", "run", "--listen", port.to_s, "--state-dir", testpath/"state", "--", *server
    url = "http://127.0.0.1:#{port}/"
    assert_match "served", shell_output("curl --silent --retry 30 --retry-connrefused #{url}")
    system bin/"gatewayctl", "--state-dir", testpath/"state", "restart"
    assert_match "served", shell_output("curl --silent #{url}")
  ensure
    Process.kill "TERM", pid
    Process.wait pid
  end
end
