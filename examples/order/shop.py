"""The activities of an order: charge a card, give the money back, hand the parcel to a carrier."""
import time

import ledger
from selvedge import Retryable, Terminal, activity, run

LIMIT_CENTS = {"ada": 1_000_000, "grace": 200_000, "edsger": 100}  # what the card of each customer is good for
REFUSED = {"anvil"}                                                # what no carrier takes


@activity("charge_card")
def charge_card(input, attempt):
    if input["cents"] > LIMIT_CENTS.get(input["customer"], 0):
        # The pipeline gives up on this code; another one would be tried again, up to eight times.
        raise Retryable("card_declined", "the bank of %s declines %d cents" % (input["customer"], input["cents"]))
    charge, _ = ledger.once(attempt.key, "charge", id="ch_" + attempt.key[:12], customer=input["customer"], cents=input["cents"])
    return {"id": charge["id"], "cents": charge["cents"]}


@activity("refund")
def refund(input, attempt):
    refunded, _ = ledger.once(attempt.key, "refund", charge=input["charge"])
    return {"refunded": refunded["charge"]}


@activity("ship")
def ship(input, attempt):
    refused = [each["sku"] for each in input["reservations"] if each["sku"] in REFUSED]
    if refused:
        raise Terminal("no_carrier", "no carrier takes: " + ", ".join(refused))
    parcel, _ = ledger.once(attempt.key, "ship", order=input["order"], tracking_number="tr_" + attempt.key[:12])
    time.sleep(0.3)  # the label is printed
    return {"tracking_number": parcel["tracking_number"]}


if __name__ == "__main__":
    run()
