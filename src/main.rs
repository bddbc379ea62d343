//! `planb`: see `planb --help`.

fn main() -> std::process::ExitCode {
    planb::cli::main()
}
