//! Korean.

use super::{Language, duration, line, time};
use crate::notify::notice::{Outcome, Verdict, What};

fn told(seconds: u64) -> String {
    duration(seconds, Language::Ko)
}

fn loss(seconds: Option<u64>) -> String {
    seconds.map_or_else(
        || "모든 데이터(정상 백업이 없음)".to_owned(),
        |seconds| format!("최근 {} 동안의 데이터", told(seconds)),
    )
}

fn site(name: &str) -> &str {
    match name {
        "primary" => "주 사이트(primary)",
        "standby" => "대기 사이트(standby)",
        other => other,
    }
}

/// Title, what it means, what to do.
pub(super) fn words(what: &What) -> (String, String, String) {
    let (title, means, todo): (String, String, &str) = match what {
        What::BackupFailed { error } => (
            "백업 실패".into(),
            format!(
                "방금 실행한 백업이 남지 않았습니다. 이전 백업은 그대로이고 에이전트가 자동으로 다시 시도합니다. 원인: {}",
                line(error)
            ),
            "계속 실패하면 RPO를 위반하게 됩니다. 무엇이 막고 있는지 확인하십시오.",
        ),
        What::BackupDamaged { id, place } => (
            format!("백업 손상: {id}"),
            format!(
                "저장된 백업을 다시 읽어 보니 기록한 내용과 다릅니다({}). 이 백업은 사용 불가로 처리되고 RPO는 그 이전 백업부터 계산됩니다.",
                line(place)
            ),
            "저장소를 점검하십시오. 손상된 백업이 이것뿐이 아닐 수 있습니다. 이 백업을 다시 검사한 뒤 앞뒤 백업도 검사하십시오.",
        ),
        What::RpoAtRisk {
            loss_seconds,
            target_seconds,
        } => (
            "RPO 위험".into(),
            format!(
                "다음 백업이 목표 {} 안에 끝나지 않을 것으로 보입니다. 지금 원본이 사라지면 잃는 것: {}.",
                told(*target_seconds),
                loss(*loss_seconds)
            ),
            "곧 해소되면 조치가 필요 없습니다. 반복되면 백업이 목표에 비해 너무 느리거나 드문 것입니다.",
        ),
        What::RpoBreached {
            loss_seconds,
            target_seconds,
        } => (
            "RPO 위반".into(),
            format!(
                "지금 원본이 사라지면 잃는 것: {}. 목표는 {}입니다. 그동안 오래된 백업은 삭제하지 않습니다.",
                loss(*loss_seconds),
                told(*target_seconds)
            ),
            "백업이 저장되지 않는 이유를 찾으십시오. 에이전트가 실행 중인지, 원본과 저장소에 연결되는지 확인하십시오.",
        ),
        What::ProofTooOld {
            age_seconds,
            allowed_seconds,
        } => (
            "복원 검증이 오래됨".into(),
            format!(
                "백업을 실제로 복원해 확인한 것이 {} 전입니다(허용: {}). 백업은 만들어지고 있지만 복원되는지는 아무도 모릅니다.",
                told(*age_seconds),
                told(*allowed_seconds)
            ),
            "오늘 안에 백업 하나를 복원해 비교하십시오.",
        ),
        What::ProofFailed { error } => (
            "백업 복원 검증 실패".into(),
            format!(
                "최신 백업을 검증하기 위한 복원이 실패했거나 결과가 다릅니다. 원인을 알기 전에는 복원을 믿지 마십시오. 원인: {}",
                line(error)
            ),
            "직접 다시 실행해 무엇이 다른지 확인하십시오.",
        ),
        What::StoreUnreachable { error } => (
            "백업 저장소 응답 없음".into(),
            format!(
                "백업을 저장하거나 조회할 수 없어 RPO가 계속 늘어납니다. 에이전트는 계속 다시 시도합니다. 원인: {}",
                line(error)
            ),
            "두 번째 클라우드까지의 네트워크, 스토리지 계정, 에이전트의 권한을 확인하십시오.",
        ),
        What::VerdictChanged { verdict, why } => match verdict {
            Verdict::Down => (
                "주 사이트 장애".into(),
                format!(
                    "감시자 과반수가 사용자 서비스가 중단되었다고 판단했습니다. {}",
                    line(why)
                ),
                "기다릴지 전환할지 결정하십시오. 먼저 계획을 확인하십시오. 무엇을 잃는지 보여 줄 뿐 아무것도 바꾸지 않습니다.",
            ),
            Verdict::ControlDown => (
                "주 클라우드 관리 API 응답 없음(서비스는 정상)".into(),
                format!(
                    "데이터 경로는 동작하지만 클라우드의 관리 API가 응답하지 않습니다. {}",
                    line(why)
                ),
                "이것만으로 서비스를 전환하지 마십시오. 다만 대비하십시오. 그 클라우드에만 있는 것은 지금 얻을 수 없습니다.",
            ),
            Verdict::Unknown => (
                "주 사이트 상태를 알 수 없음".into(),
                format!(
                    "설정된 감시자 중 응답하는 수가 부족합니다. 이 상태로는 절대 자동 전환하지 않습니다. {}",
                    line(why)
                ),
                "감시자가 실행 중이고 저장소에 연결되는지 확인하십시오.",
            ),
            Verdict::Healthy => ("주 사이트 정상".into(), line(why), "조치가 필요 없습니다."),
        },
        What::FailoverWithheld { why } => (
            "자동 전환 보류: 사람이 결정해야 합니다".into(),
            format!(
                "주 사이트가 중단되었지만 자동 전환을 시작할 수 없습니다: {}. 지금은 사람의 결정을 기다립니다.",
                line(why)
            ),
            "기다릴지 전환할지 결정하십시오. 먼저 계획을 확인하십시오. 무엇을 잃는지 보여 줄 뿐 아무것도 바꾸지 않습니다.",
        ),
        What::OperationBegun {
            operation,
            command,
            who,
            facts,
        } => (
            format!("{command} 시작됨 ({who})"),
            format!("작업 {operation}번. {}", line(&facts.join("; "))),
            "다른 작업을 시작하지 마십시오. 진행 상황:",
        ),
        What::CommitPoint {
            operation,
            command,
            epoch,
        } => (
            format!("{command}: 되돌릴 수 없는 시점을 지남"),
            format!(
                "작업 {operation}번: 이제부터는 되돌릴 수 없고 계속 진행만 할 수 있습니다. 에포크는 {epoch}이며, 지금부터 상대 사이트에서 만들어지는 백업은 고아(orphan)로 취급됩니다."
            ),
            "중단되면 반드시 이어서 진행해야 합니다. 진행 상황:",
        ),
        What::OperationStopped {
            operation,
            command,
            why,
        } => (
            format!("{command} 중단됨"),
            format!(
                "작업 {operation}번이 사람을 기다리고 있습니다. 기다려도 시간 외에 잃는 것은 없습니다. 원인: {}",
                line(why)
            ),
            "막고 있는 것을 해결한 뒤 어느 장비에서든 이어서 진행하십시오:",
        ),
        What::OperationEnded {
            operation,
            command,
            how,
            standing,
        } => (
            match how {
                Outcome::Done => format!("{command} 완료"),
                Outcome::Abandoned => format!("{command} 취소 및 원상 복구됨"),
                Outcome::GivenUp => format!("{command} 포기됨: 현재 서비스하는 사이트 없음"),
            },
            format!("작업 {operation}번이 끝났습니다. 현재 상태: {}.", line(standing)),
            match how {
                Outcome::Done | Outcome::Abandoned => "사용자 서비스가 정상인지 확인하십시오. 누가 언제 무엇을 했는지:",
                Outcome::GivenUp => {
                    "planb failback(stand-down)으로 주 사이트가 다시 서비스하게 하십시오. 누가 언제 무엇을 했는지:"
                }
            },
        ),
        What::StepBegan { operation, step } => (
            format!("단계 {step} 시작"),
            format!("작업 {operation}번."),
            "조치가 필요 없습니다. 진행 상황:",
        ),
        What::StepEnded { operation, step, note } => (
            format!("단계 {step} 완료"),
            format!("작업 {operation}번. {}", line(note)),
            "조치가 필요 없습니다. 진행 상황:",
        ),
        What::StepFailed { operation, step, error } => (
            format!("단계 {step} 실패"),
            format!(
                "작업 {operation}번. 남은 시도가 있으면 자동으로 다시 시도합니다. 원인: {}",
                line(error)
            ),
            "작업이 중단되었다는 알림이 오기 전에는 조치가 필요 없습니다. 진행 상황:",
        ),
        What::RuleAccepted {
            operation,
            rule,
            reason,
            who,
        } => (
            format!("{who}님이 안전 규칙 {rule} 위반을 승인함"),
            format!(
                "작업 {operation}번은 규칙 {rule}에 어긋나지만 계속 진행합니다. 사유: {}",
                line(reason)
            ),
            "이의가 있으면 지금 알리십시오. 누가 언제 무엇을 했는지:",
        ),
        What::PendingFence { site: name, why } => (
            format!("{}의 쓰기 차단(fence)이 확인되지 않음", site(name)),
            format!(
                "서비스는 옮겨졌지만 {}에 더 이상 쓰기가 없다는 것을 확인하지 못했습니다. 그 사이트가 되살아나면 쓰기를 받을 수 있습니다. 자동으로 다시 시도합니다. {}",
                site(name),
                line(why)
            ),
            "애플리케이션이 그곳에 쓸 수 없는지 직접 확인하고, 그곳에서 애플리케이션을 시작하지 마십시오.",
        ),
        What::DrillResult { passed: true, summary } => (
            "훈련 성공".into(),
            line(summary),
            "조치가 필요 없습니다. 보고서를 보관하십시오.",
        ),
        What::DrillResult { passed: false, summary } => (
            "훈련 실패".into(),
            format!(
                "훈련한 절차가 동작하지 않았거나 제시간에 끝나지 않았습니다. 원인: {}",
                line(summary)
            ),
            "보고서를 읽고 고친 뒤, 실제로 필요한 밤이 오기 전에 다시 훈련하십시오.",
        ),
        What::DrillLeft { begun, who, host } => (
            "훈련 환경이 정리되지 않고 남아 있음".into(),
            format!(
                "{who}이(가) {begun}에 {host}에서 시작한 훈련의 프로세스가 사라졌습니다. 훈련이 만든 서버가 아직 남아 있어 비용이 발생합니다. 실제 \
                 서비스에는 영향이 없습니다. [drill]을 맡은 프로세스가 자동으로 정리하며, 정리될 때까지 계속 알립니다."
            ),
            "자동으로 정리되지 않으면 직접 정리하고, 실패하면 그 이유를 읽으십시오:",
        ),
        What::DarkCheck { findings } => (
            "복구가 아직 장애 가능한 클라우드에 의존함".into(),
            format!(
                "그 클라우드의 주소를 차단하고 찾은 항목: {}",
                line(&findings.join("; "))
            ),
            "각 항목에 다른 경로를 마련한 뒤 다시 확인하십시오:",
        ),
        What::CertificateExpiring { name, expires_at } => (
            format!("{name} 인증서 만료 예정"),
            format!(
                "{}까지 유효합니다. 그 이후에는 인증서를 검사하는 모든 연결이 거부됩니다.",
                time(*expires_at)
            ),
            "인증서를 갱신한 뒤 확인하십시오:",
        ),
        What::ChannelFailing { channel, error } => (
            format!("알림 채널 {channel} 전송 실패"),
            format!(
                "이 채널을 보는 사람은 알림을 받지 못합니다. 알림은 보관되었다가 복구되면 전송됩니다. 원인: {}",
                line(error)
            ),
            "고친 뒤 시험해 보십시오:",
        ),
        What::Test { who } => (
            "시험: 이 채널은 정상입니다".into(),
            format!("{who}님이 planb notify --test로 시험했습니다. 문제는 없습니다."),
            "조치가 필요 없습니다.",
        ),
    };
    (title, means, todo.to_owned())
}
