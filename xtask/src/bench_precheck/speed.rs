//! Time and memory on files, with `cat` and the rivals that are on the PATH beside.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

const OBJECTS_IN_A_FILE: usize = 500;

/// What a run took.
pub(super) struct Cost {
    pub(super) wall_seconds: f64,
    pub(super) cpu_seconds: f64,
    pub(super) peak_kibibytes: u64,
}

/// Measures all layouts and sizes.
pub(super) fn measure(shiplock: &Path, folder: &Path, runs: u32) -> Result<()> {
    forget(shiplock)?;
    println!("speed: median of {runs} runs; wall s / CPU s / peak MiB");
    for (objects, in_a_file) in [(1_000, 1), (10_000, 1), (10_000, OBJECTS_IN_A_FILE), (100_000, OBJECTS_IN_A_FILE)] {
        let root = folder.join(format!("speed-{objects}-{in_a_file}"));
        generate(&root, objects, in_a_file)?;
        let path = root.to_string_lossy();
        println!("  {objects} objects, {in_a_file} in a file");
        let shiplock = shiplock.to_string_lossy();
        let rivals: [(&str, Vec<&str>); 4] = [
            ("shiplock", vec![&shiplock, "check", "-f", &path, "--to", "1.37", "-o", "json"]),
            ("cat", vec!["sh", "-c", "find \"$0\" -type f -print0 | xargs -0 cat", &path]),
            ("pluto", vec!["pluto", "detect-files", "-d", &path, "-o", "json", "--target-versions", "k8s=v1.37.0"]),
            ("upgradescope", vec!["upgradescope", "scan", "--files", &path, "--target", "1.37"]),
        ];
        for (name, command) in rivals {
            if name != "shiplock" && name != "cat" && !is_on_path(name) {
                continue;
            }
            let cost = median(&command, runs)?;
            #[expect(clippy::cast_precision_loss, reason = "small numbers for people")]
            let mebibytes = cost.peak_kibibytes as f64 / 1024.0;
            println!("    {name:<12} {:.3} / {:.3} / {mebibytes:.1}", cost.wall_seconds, cost.cpu_seconds);
        }
        std::fs::remove_dir_all(&root)?;
    }
    Ok(())
}

/// Lets the page cache forget a program, so that it is read as after a boot. What was just written lies there in large
/// pieces, which Linux 6.18 counts to whoever touches one byte of them.
fn forget(program: &Path) -> Result<()> {
    let file = std::fs::File::open(program)?;
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

pub(super) fn is_on_path(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}

/// Deployments as people write them; one in twenty is of a version that is gone.
fn generate(root: &Path, objects: usize, in_a_file: usize) -> Result<()> {
    std::fs::create_dir_all(root)?;
    let mut text = String::new();
    for index in 0..objects {
        let version = if index % 20 == 0 { "extensions/v1beta1" } else { "apps/v1" };
        if !text.is_empty() {
            text.push_str("---\n");
        }
        let _ = write!(
            text,
            "apiVersion: {version}\nkind: Deployment\nmetadata:\n  name: app-{index}\n  namespace: team-{}\n  labels:\n    app: app-{index}\nspec:\n  replicas: 3\n  selector:\n    matchLabels:\n      app: app-{index}\n  template:\n    metadata:\n      labels:\n        app: app-{index}\n    spec:\n      containers:\n      - name: main\n        image: registry.example.com/team/app:{index}\n        args: [\"--port\", \"8080\"]\n        ports:\n        - containerPort: 8080\n        resources:\n          requests:\n            cpu: 100m\n            memory: 64Mi\n",
            index % 40
        );
        if (index + 1) % in_a_file == 0 {
            std::fs::write(root.join(format!("{index}.yaml")), &text)?;
            text.clear();
        }
    }
    Ok(())
}

fn median(command: &[&str], runs: u32) -> Result<Cost> {
    let mut costs = Vec::new();
    // The first run warms the page cache.
    for run in 0..=runs {
        let cost = cost(command)?;
        if run > 0 {
            costs.push(cost);
        }
    }
    median_of(costs)
}

/// The run in the middle, by wall time.
pub(super) fn median_of(mut costs: Vec<Cost>) -> Result<Cost> {
    costs.sort_by(|one, other| one.wall_seconds.total_cmp(&other.wall_seconds));
    let middle = costs.len() / 2;
    costs.into_iter().nth(middle).context("at least one run")
}

fn cost(command: &[&str]) -> Result<Cost> {
    cost_with(&command.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), &[])
}

/// What a command takes, with further variables of its environment.
pub(super) fn cost_with(command: &[String], variables: &[(&str, &str)]) -> Result<Cost> {
    let output = Command::new("/usr/bin/time")
        .args(["-f", "%e %U %S %M"])
        .args(command)
        .envs(variables.iter().copied())
        .stdout(Stdio::null())
        .output()
        .context("/usr/bin/time cannot be started")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let numbers: Vec<f64> =
        text.lines().last().unwrap_or_default().split(' ').filter_map(|number| number.parse().ok()).collect();
    ensure!(numbers.len() == 4, "{command:?}: {text}");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of KiB")]
    Ok(Cost { wall_seconds: numbers[0], cpu_seconds: numbers[1] + numbers[2], peak_kibibytes: numbers[3] as u64 })
}
