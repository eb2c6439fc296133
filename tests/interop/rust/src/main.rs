//! tonic. What it prints is in ../README.md.

use std::collections::HashSet;
use std::env;
use std::error::Error;
use std::fs;
use std::future::Future;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::try_join_all;
use tokio_stream::StreamExt;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::HealthCheckRequest;
use tonic_types::StatusExt;

mod riskd {
    tonic::include_proto!("riskd.v1");
}
use riskd::order_risk_service_client::OrderRiskServiceClient;
use riskd::stream_orders_request::Request as Message;
use riskd::stream_orders_response::Response as Answer;
use riskd::{
    BatchCheckOrdersRequest, CheckOrderRequest, CheckOrderResponse, Decision, OrderType, Side,
    StreamOrdersRequest, StreamOrdersResponse,
};

const SERVICE: &str = "riskd.v1.OrderRiskService";
const NOBODY: &str = "\tno body\r\n\u{263a} \u{1f608} %41\n";
const MINUTE: Duration = Duration::from_secs(60);

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

fn order() -> CheckOrderRequest {
    CheckOrderRequest {
        account_id: 7,
        instrument_id: 1,
        client_order_id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        side: Side::Buy as i32,
        order_type: OrderType::Limit as i32,
        price_ticks: 120_000,
        quantity_lots: 1,
        gateway_id: 3,
        ..Default::default()
    }
}

fn expect(holds: bool, why: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(why().into()) }
}

fn accepted(reply: &CheckOrderResponse) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let held = reply.decision == Decision::Accepted as i32 && reply.reservation_id != 0;
    expect(held, || format!("{reply:?}"))?;
    Ok(reply.reservation_id)
}

fn expect_code<T>(found: Result<T, Status>, codes: &[Code]) -> Result<Status, String> {
    match found {
        Ok(_) => Err("OK".into()),
        Err(status) if codes.contains(&status.code()) => Ok(status),
        Err(status) => Err(format!("{status:?}")),
    }
}

fn timed<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

fn in_stream(order: CheckOrderRequest) -> StreamOrdersRequest {
    StreamOrdersRequest { request: Some(Message::Order(order)) }
}

fn answered(reply: StreamOrdersResponse) -> Result<u64, Box<dyn Error + Send + Sync>> {
    match reply.response {
        Some(Answer::Order(order)) => accepted(&order),
        other => Err(format!("{other:?}").into()),
    }
}

#[derive(Clone)]
struct Cases {
    channel: Channel,
    orders: OrderRiskServiceClient<Channel>,
}

impl Cases {
    async fn check(
        &self,
        request: Request<CheckOrderRequest>,
    ) -> Result<CheckOrderResponse, Box<dyn Error + Send + Sync>> {
        let reply = self.orders.clone().check_order(request).await?.into_inner();
        accepted(&reply)?;
        Ok(reply)
    }

    async fn unary(self) -> Outcome {
        self.check(timed(order(), MINUTE)).await.map(|_| ())
    }

    async fn repeat(self) -> Outcome {
        let request = order();
        let first = self.check(timed(request, MINUTE)).await?;
        let second = self.check(timed(request, MINUTE)).await?;
        expect(first == second, || format!("{first:?}, then {second:?}"))
    }

    async fn metadata(self) -> Outcome {
        let request = order();
        let first = self.check(timed(request, MINUTE)).await?;
        let mut again = timed(request, MINUTE);
        again.metadata_mut().insert("x-text", "interop".parse()?);
        let raw = MetadataValue::from_bytes(&[0, 0xff, 0x80]);
        again.metadata_mut().insert_bin("x-raw-bin", raw);
        let second = self.check(again).await?;
        expect(first == second, || format!("{first:?}, then {second:?}"))
    }

    async fn batch(self) -> Outcome {
        let request = BatchCheckOrdersRequest {
            orders: (0..64).map(|_| order()).collect(),
            ..Default::default()
        };
        let reply = self.orders.clone().batch_check_orders(timed(request, MINUTE)).await?;
        let decisions = reply.into_inner().decisions;
        let seen = decisions.iter().map(accepted).collect::<Result<HashSet<_>, _>>()?;
        expect(seen.len() == 64, || format!("{} decisions", seen.len()))
    }

    async fn details(self) -> Outcome {
        let request = BatchCheckOrdersRequest::default();
        let found = self.orders.clone().batch_check_orders(timed(request, MINUTE)).await;
        let status = expect_code(found, &[Code::InvalidArgument])?;
        let info = status.get_details_error_info().ok_or("no ErrorInfo")?;
        let right = info.domain == "riskd" && info.reason == "REQUEST_MALFORMED";
        expect(right, || format!("{info:?}"))
    }

    async fn large(self) -> Outcome {
        let one = order();
        let request = BatchCheckOrdersRequest {
            orders: vec![one; (1 << 20) / 25],
            ..Default::default()
        };
        let found = self.orders.clone().batch_check_orders(timed(request, MINUTE)).await;
        expect_code(found, &[Code::ResourceExhausted, Code::InvalidArgument])?;
        self.unary().await
    }

    async fn unimplemented(self) -> Outcome {
        for path in [format!("/{SERVICE}/Nothing"), "/nobody.Nothing/Nothing".into()] {
            let mut client = tonic::client::Grpc::new(self.channel.clone());
            client.ready().await?;
            let codec =
                tonic_prost::ProstCodec::<CheckOrderRequest, CheckOrderResponse>::default();
            let path = PathAndQuery::try_from(path)?;
            let found = client.unary(timed(order(), MINUTE), path, codec).await;
            expect_code(found, &[Code::Unimplemented])?;
        }
        Ok(())
    }

    async fn deadline(self) -> Outcome {
        self.clone().unary().await?;
        let nothing = tokio_stream::pending::<StreamOrdersRequest>();
        let call = timed(nothing, Duration::from_millis(200));
        let status = match self.orders.clone().stream_orders(call).await {
            Err(status) => status,
            Ok(call) => match call.into_inner().next().await {
                Some(Err(status)) => status,
                other => return Err(format!("{other:?}").into()),
            },
        };
        // tonic calls its own end of waiting Cancelled: "Timeout expired".
        let late = status.code() == Code::DeadlineExceeded
            || (status.code() == Code::Cancelled && status.message() == "Timeout expired");
        expect(late, || format!("{status:?}"))
    }

    /// tonic cancels by dropping: there is no status to see.
    async fn cancel(self) -> Outcome {
        let messages = tokio_stream::once(in_stream(order())).chain(tokio_stream::pending());
        let call = self.orders.clone().stream_orders(timed(messages, MINUTE)).await?;
        let mut replies = call.into_inner();
        answered(replies.next().await.ok_or("no reply")??)?;
        drop(replies);
        self.unary().await
    }

    async fn stream(self) -> Outcome {
        let messages: Vec<_> = (0..1000).map(|_| in_stream(order())).collect();
        let call = timed(tokio_stream::iter(messages), MINUTE);
        let mut replies = self.orders.clone().stream_orders(call).await?.into_inner();
        let mut last = 0;
        let mut count = 0;
        while let Some(reply) = replies.next().await {
            let reservation = answered(reply?)?;
            expect(reservation > last, || format!("{reservation} after {last}"))?;
            last = reservation;
            count += 1;
        }
        expect(count == 1000, || format!("{count} replies"))
    }

    async fn health(self) -> Outcome {
        let mut client = HealthClient::new(self.channel.clone());
        for service in ["", SERVICE] {
            let request = HealthCheckRequest { service: service.into() };
            let status = client.check(timed(request, MINUTE)).await?.into_inner().status;
            expect(status == ServingStatus::Serving as i32, || format!("{service}: {status}"))?;
        }
        let request = HealthCheckRequest { service: NOBODY.into() };
        let found = client.check(timed(request, MINUTE)).await;
        let status = expect_code(found, &[Code::NotFound])?;
        let wanted = format!("service {NOBODY} is unknown");
        expect(status.message() == wanted, || format!("{status:?}"))
    }

    async fn concurrent(self) -> Outcome {
        let calls: i64 = env::var("INTEROP_CALLS")?.parse()?;
        let left = Arc::new(AtomicI64::new(calls));
        let seen = Arc::new(Mutex::new(HashSet::new()));
        try_join_all((0..64).map(|_| {
            let (cases, left, seen) = (self.clone(), left.clone(), seen.clone());
            async move {
                while left.fetch_sub(1, Ordering::Relaxed) > 0 {
                    let reply = cases.check(timed(order(), MINUTE)).await?;
                    seen.lock().unwrap().insert(reply.reservation_id);
                }
                Ok::<(), Box<dyn Error + Send + Sync>>(())
            }
        }))
        .await?;
        let count = seen.lock().unwrap().len() as i64;
        expect(count == calls, || format!("{count} reservations"))
    }
}

async fn connect() -> Result<Channel, Box<dyn Error + Send + Sync>> {
    let address = env::var("INTEROP_ADDRESS")?;
    let Ok(ca) = env::var("INTEROP_CA") else {
        return Ok(Endpoint::from_shared(format!("http://{address}"))?.connect().await?);
    };
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(fs::read(ca)?))
        .domain_name("localhost");
    if let Ok(certificate) = env::var("INTEROP_CERTIFICATE") {
        let key = fs::read(env::var("INTEROP_KEY")?)?;
        tls = tls.identity(Identity::from_pem(fs::read(certificate)?, key));
    }
    Ok(Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?.connect().await?)
}

async fn report(name: &str, case: impl Future<Output = Outcome>) {
    match case.await {
        Ok(()) => println!("{name}\tok"),
        Err(error) => println!("{name}\tFAIL\t{:?}", error.to_string()),
    }
}

#[tokio::main]
async fn main() -> Outcome {
    NEXT_ID.store(env::var("INTEROP_FIRST_ID")?.parse()?, Ordering::Relaxed);
    let channel = connect().await?;
    let orders = OrderRiskServiceClient::new(channel.clone());
    let cases = Cases { channel, orders };
    report("unary", cases.clone().unary()).await;
    report("repeat", cases.clone().repeat()).await;
    report("metadata", cases.clone().metadata()).await;
    report("batch", cases.clone().batch()).await;
    report("details", cases.clone().details()).await;
    report("large", cases.clone().large()).await;
    report("unimplemented", cases.clone().unimplemented()).await;
    report("deadline", cases.clone().deadline()).await;
    report("cancel", cases.clone().cancel()).await;
    report("stream", cases.clone().stream()).await;
    report("health", cases.clone().health()).await;
    report("concurrent", cases.concurrent()).await;
    Ok(())
}
