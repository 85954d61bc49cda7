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
    starter = Utils.safe_popen_read(bin/"gatewayctl", "config", "init", "--stdout")
    (buildpath/"gateway.toml").write starter
    (etc/"gateway").install "gateway.toml"
  end

  def caveats
    <<~EOS
      Write into #{etc}/gateway/gateway.toml what to start, then: brew services start gateway
      To restart the server behind it without losing a request: gatewayctl restart
      The addresses of this service are closed while the gateway itself restarts. For a job whose
      addresses launchd holds open meanwhile: gatewayctl install
    EOS
  end

  service do
    run [opt_bin/"gateway", "run", "--config", etc/"gateway/gateway.toml"]
    keep_alive true
    process_type :interactive
    environment_variables PATH: std_service_path_env
    working_dir HOMEBREW_PREFIX
    log_path var/"log/gateway.log"
    error_log_path var/"log/gateway.log"
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
